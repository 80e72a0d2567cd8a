"""TensorRT on NVIDIA GPUs, prepared anywhere: graph, build plan, and the structure it gets."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from targets.artifacts import artifact_file, built_artifact, plan_to_run
from targets.contract import (
    ArtifactFile,
    Availability,
    CompiledArtifact,
    CompileRequest,
    Device,
    ExecutedPrecision,
    FinishRequest,
    Hardware,
    OnnxArtifact,
    Recipe,
    RunPlan,
    RuntimeVariant,
    Structure,
    TargetSpec,
)
from targets.errors import (
    ConfigError,
    DeviceError,
    NotInstalledError,
)
from targets.hardware.gpus import GpuProfile, gpu_profile, gpu_profiles
from targets.hardware.nvidia import detect_gpu
from targets.tensorrt.build_plan import BuildPlan, profiles_for, trtexec_line, with_options
from targets.tensorrt.cuda import CUDA_BINDINGS
from targets.tensorrt.engine import build_engine
from targets.tensorrt.files import (
    ASKED_FILE,
    CACHE_FILE,
    COMMANDS_FILE,
    ENGINE_FILE,
    PLAN_FILE,
    STRUCTURE_FILE,
    read_asked,
    read_plan,
    write_bytes,
    write_cache,
    write_structure,
    write_text,
)
from targets.tensorrt.inspection import Asked, read_layers_list
from targets.tensorrt.plan_header import TENSORRT_RUNTIME, Loader, require_plan
from targets.tensorrt.recipes import TENSOR_CORE, recipes_for
from targets.tensorrt.sdk import (
    TENSORRT,
    import_rtx,
    import_tensorrt,
    lacks_cuda_package,
    rtx_versions,
    tensorrt_versions,
)
from targets.tensorrt.timing_cache import TimingCache

LOCAL = "local"
SIMULATION = Path(__file__).with_name("simulation.py")
SESSION = Path(__file__).with_name("session.py")
EMBEDDING = "sentence_embedding"
TRTEXEC_TIMINGS = "trtexec.timing"
ARCHITECTURE = "cuda"
DEFAULT_CAPABILITY = "8.9"
FINISH = "exporter build BUNDLE, on the machine with the GPU"
_LENGTH_MULTIPLE, _MAX_BATCH_TOKENS = 1, 1024


class TensorRtTarget:
    """Prepares graphs for TensorRT 10 and 11 and checks their structure where it can."""

    spec = TargetSpec(
        name=TENSORRT,
        vendor="NVIDIA",
        runtime="TensorRT",
        precisions=("float32", "float16", "int8"),
        max_opset=23,
        artifact_kind="ONNX with Q/DQ and a build plan",
        extra=TENSORRT,
        architectures=("x86_64", "aarch64", ARCHITECTURE),
    )

    _graph_on_device = True

    def probe(self, device: Device) -> Availability:
        """Say what is missing to build and run engines on this machine's GPU; never raises."""
        missing = [*self._lacks_runtime(), *lacks_cuda_package()]
        if device.name != LOCAL:
            missing.append(f"{device.name}: engines are built and run on the machine of the GPU")
        try:
            found = detect_gpu()
            hardware = self.detected_hardware(device)
        except DeviceError as error:
            missing.append(f"{error.what}: {FINISH}")
            return Availability(ok=False, missing=tuple(missing), tool_versions=self._versions())
        return Availability(
            ok=not missing,
            missing=tuple(missing),
            device_name=found.name,
            fingerprint=hardware.fingerprint,
            features=tuple(sorted(hardware.features)),
            tool_versions={**self._versions(), "nvidia-driver": found.driver},
        )

    def candidates(self, graph: OnnxArtifact | None, hardware: Hardware) -> tuple[Recipe, ...]:
        """Return the recipes for this GPU, the FP32 baseline first."""
        return recipes_for(hardware)

    def with_int8_attention(self, recipe: Recipe, graph: OnnxArtifact) -> Recipe:
        """Return an int8 recipe with attention in int8 too; see `targets.tensorrt.attention`.

        Raises:
            ConfigError: TensorRT would not fuse this graph's attention in int8.
        """
        from targets.tensorrt.attention import with_int8_attention  # imports onnx

        return with_int8_attention(recipe, graph)

    # ---------------------------------------------------------------------- preparation

    def lacking_to_prepare(self) -> tuple[str, ...]:
        """Say what preparing needs and this machine has not: nothing but this package."""
        return ()

    def prepared_hardware(self, compute_capabilities: Sequence[str]) -> Hardware:
        """Return a GPU of the named capabilities, all of them at once; by default Ada.

        Raises:
            ConfigError: a capability that is not known, or that the target cannot build for.
        """
        wanted = [gpu_profile(one) for one in compute_capabilities or (DEFAULT_CAPABILITY,)]
        for gpu in wanted:
            self._require_supported(gpu)
        names = ", ".join(gpu.sm for gpu in wanted)
        return self._hardware(wanted, f"no GPU here: prepared for {names}")

    def detected_hardware(self, device: Device) -> Hardware:
        """Return this machine's GPU, with the CPU cores that feed it.

        Raises:
            DeviceError: there is none.
        """
        gpu = detect_gpu()
        found = self._hardware([gpu.profile], gpu.name)
        cores = device.hardware().num_cores
        return replace(found, num_cores=cores, memory_bytes=gpu.memory_bytes)

    def _hardware(self, gpus: Sequence[GpuProfile], name: str) -> Hardware:
        formats = set.intersection(*(set(gpu.tensor_formats) for gpu in gpus))
        names = [gpu.sm for gpu in gpus]
        return Hardware(
            architecture=ARCHITECTURE,
            vendor=self.spec.vendor,
            model_name=name,
            microarchitecture="+".join(names),
            features=frozenset((*names, *(TENSOR_CORE.format(one) for one in formats))),
            num_cores=0,
            memory_bytes=0,
        )

    def compile(self, request: CompileRequest) -> CompiledArtifact:
        """Write the graph, its build plan and, where a compiler is at hand, its structure.

        Raises:
            CompileError: the recipe cannot be built, a compiler refuses the graph, or fewer
                linear layers run in int8 than the recipe says.
            CalibrationError: the plans' file is damaged.
            StorageError: a file cannot be written.
        """
        from targets.tensorrt.graph import build_graph, save_graph  # imports onnx

        started = time.perf_counter()
        folder = request.output_dir
        built = build_graph(request)
        paths = save_graph(built.model, folder / f"model_{_file_stem(request.recipe)}.onnx")
        plan = BuildPlan(
            graph=paths[0].name,
            inputs=tuple(tensor.name for tensor in request.graph.inputs),
            profiles=profiles_for(request.calibration, request.graph.max_seq_length),
            compute_capabilities=_capabilities(request.hardware, request.recipe),
            timing_cache=TRTEXEC_TIMINGS,
        )
        plan = with_options(plan, request.options)
        asked = Asked(
            linear=tuple(layer.node for layer in built.layers.linears),
            attention=tuple(built.layers.attention),
            num_int8=built.num_int8,
            num_int8_attentions=built.num_int8_attentions,
        )
        files = [artifact_file(path, on_device=self._graph_on_device) for path in paths]
        files += self._write_build(folder, plan)
        if built.num_int8 and self._has_calibrators:
            files.append(write_cache(folder, built.model))
        files.append(write_text(folder / ASKED_FILE, json.dumps(asdict(asked), indent=1)))
        if not only_without_float32(request.hardware, request.recipe):
            files += self._compiled(folder, paths[0], plan, asked)
        return built_artifact(request, self.spec.name, files, self._versions(), started)

    def structure(self, artifact: CompiledArtifact) -> Structure | None:
        """Return what the compiler at hand made of the graph when it was prepared."""
        path = artifact.directory / STRUCTURE_FILE
        if not path.is_file():
            return None
        values: dict[str, Any] = json.loads(path.read_text("utf-8"))
        rows = tuple(ExecutedPrecision(**row) for row in values.pop("rows"))
        return Structure(rows=rows, warnings=tuple(values.pop("warnings")), **values)

    def simulation(
        self, artifact: CompiledArtifact, graph: OnnxArtifact, pad_token_id: int, num_threads: int
    ) -> RunPlan:
        """Let ONNX Runtime run the very graph that TensorRT is given."""
        return plan_to_run(
            artifact,
            graph,
            pad_token_id,
            adapter=SIMULATION,
            output=EMBEDDING,
            options={},
            length_multiple=_LENGTH_MULTIPLE,
            max_batch_tokens=_MAX_BATCH_TOKENS,
        )

    def run_plan(
        self, artifact: CompiledArtifact, graph: OnnxArtifact, pad_token_id: int, num_threads: int
    ) -> RunPlan:
        """Return what loads an engine; it is looked at before any runtime deserializes it.

        Raises:
            NotInstalledError: it is not built yet, or TensorRT is missing.
            CompileError: another TensorRT built it.
            StorageError: it is damaged, or not the file that its bundle names.
        """
        entry = artifact.files[0]
        if not entry.path.endswith(ENGINE_FILE):
            raise NotInstalledError(
                f"the {self.spec.name} engine is not built yet",
                why=f"the artifact holds {entry.path}",
                hint=FINISH,
            )
        engine = artifact.directory / entry.path
        plan = read_plan(engine.with_name(PLAN_FILE))
        require_plan(
            engine,
            self._loader(),
            sha256=entry.sha256,
            version_compatible=plan.version_compatible,
        )
        return plan_to_run(
            artifact,
            graph,
            pad_token_id,
            adapter=SESSION,
            output=EMBEDDING,
            options={
                "runtime": self._module_name,
                "cuda_api": plan.cuda_api,
                "cuda_graph": str(int(plan.cuda_graph)),
                # its hash and header are known by now; such an engine holds a runtime of its own
                "host_code": str(int(plan.version_compatible)),
            },
            length_multiple=_LENGTH_MULTIPLE,
            max_batch_tokens=_MAX_BATCH_TOKENS,
        )

    def variants(self, plan: RunPlan, num_threads: int) -> tuple[RuntimeVariant, ...]:
        """Return CUDA graphs as another way of running an engine, where they can be had."""
        if plan.options.get("cuda_api") != CUDA_BINDINGS or plan.options["cuda_graph"] == "1":
            return ()
        captured = replace(plan, options={**plan.options, "cuda_graph": "1"})
        why = "one launch for the whole engine: small batches wait for the CPU that starts kernels"
        return (RuntimeVariant(name="cuda-graph", plan=captured, num_threads=num_threads, why=why),)

    def finish(self, request: FinishRequest) -> CompiledArtifact:
        """Build the engine by TensorRT's own builder on the machine of the GPU.

        Raises:
            CompileError: TensorRT refuses the graph, fewer linear layers run in int8 than were
                quantized, or the engine that was given is of another runtime, version or GPU.
            ConfigError: an option that TensorRT's builder does not have.
            NotInstalledError: TensorRT is missing.
            StorageError: the engine that was given is damaged, or a file cannot be written.
        """
        started = time.perf_counter()
        prepared, folder = request.artifact, request.output_dir
        plan = with_options(read_plan(prepared.directory / PLAN_FILE), request.options)
        if request.engine is None:
            files = self._built(request, plan)
        else:
            files = self._taken(request, plan, request.engine)
        files.append(write_text(folder / PLAN_FILE, plan.to_json()))
        return replace(
            prepared,
            directory=folder,
            files=tuple(files),
            tool_versions=self._versions(),
            compile_s=time.perf_counter() - started,
        )

    def ship(self, artifact: CompiledArtifact) -> tuple[tuple[str, str], ...]:
        """Put everything into a folder of the target's own."""
        return tuple((file.path, f"{self.spec.name}/{file.path}") for file in artifact.files)

    # -------------------------------------------------------------------------- the parts

    _has_calibrators = True  # TensorRT 10 has
    _module_name = TENSORRT
    _runtime = TENSORRT_RUNTIME

    def _import(self) -> Any:  # noqa: ANN401 - untyped
        return import_tensorrt()

    def _lacks_runtime(self) -> tuple[str, ...]:
        try:
            self._import()
        except NotInstalledError as error:
            return (f"{error.what}: {error.hint}",)
        return ()

    def _loader(self) -> Loader:
        return Loader(runtime=self._runtime, version=self._import().__version__, rebuild=FINISH)

    def _built(self, request: FinishRequest, plan: BuildPlan) -> list[ArtifactFile]:
        module, folder = self._import(), request.output_dir
        timings = None
        if request.keep_dir is not None:
            gpu = f"{request.hardware.model_name} {request.hardware.microarchitecture}"
            timings = TimingCache.for_gpu(request.keep_dir, module.__version__, gpu)
        prepared = request.artifact.directory
        # the GPU at hand decides, not the one that was prepared for
        here = replace(plan, compute_capabilities=())
        cache = prepared / CACHE_FILE
        if plan.calibrator == "cache" and cache.is_file():  # float recipes have nothing to take
            from targets.tensorrt.implicit import build_from_cache  # imports onnx

            engine = build_from_cache(module, prepared / plan.graph, cache, here)
        else:
            engine = build_engine(module, prepared / plan.graph, here, timings)
        files = [write_bytes(folder / ENGINE_FILE, engine.data, on_device=True)]
        if read_layers_list(engine.log):  # else the session's inspector must tell
            source = f"TensorRT {module.__version__}, {request.hardware.model_name}"
            asked = read_asked(prepared / ASKED_FILE)
            files.append(write_structure(folder, engine, asked, source))
        return files

    def _taken(self, request: FinishRequest, plan: BuildPlan, engine: Path) -> list[ArtifactFile]:
        """Take an engine that trtexec, or a run before, has built."""
        require_plan(
            engine,
            self._loader(),
            version_compatible=plan.version_compatible,
            capability=_capability_of(request.hardware),
        )
        place = request.output_dir / ENGINE_FILE
        return [write_bytes(place, engine.read_bytes(), on_device=True)]

    def _require_supported(self, gpu: GpuProfile) -> None:
        if not gpu.tensorrt:
            raise ConfigError(f"TensorRT 10 and 11 do not support {gpu.sm}")

    def _versions(self) -> dict[str, str]:
        return tensorrt_versions() | rtx_versions()

    def _write_build(self, folder: Path, plan: BuildPlan) -> list[ArtifactFile]:
        lines = [
            f"# TensorRT {major}\n{trtexec_line(plan, 'model.plan', major=major)}\n"
            for major in (10, 11)
        ]
        texts = {PLAN_FILE: plan.to_json(), COMMANDS_FILE: "".join(lines)}
        return [write_text(folder / name, text) for name, text in texts.items()]

    def _compiled(
        self, folder: Path, graph: Path, plan: BuildPlan, asked: Asked
    ) -> list[ArtifactFile]:
        """Check the structure by TensorRT for RTX, if it is installed."""
        try:
            module = import_rtx()
        except NotInstalledError:
            return []
        engine = build_engine(module, graph, plan)
        return [write_structure(folder, engine, asked, rtx_source(module))]


def rtx_source(module: Any) -> str:  # noqa: ANN401
    """Name the compiler that needs no GPU."""
    return f"TensorRT for RTX {module.__version__}, built without a GPU"


def _capability_of(hardware: Hardware) -> str:
    return next(
        (gpu.compute_capability for gpu in gpu_profiles() if gpu.sm in hardware.features), ""
    )


def _file_stem(recipe: Recipe) -> str:
    return recipe.name.replace("/", "-")


def _capabilities(hardware: Hardware, recipe: Recipe) -> tuple[str, ...]:
    """Return those that RTX can build a recipe for, of the device that is prepared for."""
    found = (gpu for gpu in gpu_profiles() if gpu.sm in hardware.features and gpu.tensorrt_rtx)
    names = (gpu.compute_capability for gpu in found)
    return tuple(one for one in names if not _has_no_float32(one, recipe))


def _has_no_float32(capability: str, recipe: Recipe) -> bool:
    """TensorRT for RTX 1.7: "Cannot compile … for Turing (SM75): FP32 GEMM is not supported"."""
    return capability == "7.5" and recipe.float_precision == "float32"


def only_without_float32(hardware: Hardware, recipe: Recipe) -> bool:
    """Say whether RTX can build a recipe for none of the GPUs because they are of Turing."""
    gpus = [gpu for gpu in gpu_profiles() if gpu.sm in hardware.features]
    return bool(gpus) and all(_has_no_float32(gpu.compute_capability, recipe) for gpu in gpus)
