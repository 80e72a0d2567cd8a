"""TensorRT on NVIDIA GPUs, prepared anywhere: graph, build plan, and the structure it gets."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from targets.artifacts import artifact_file, built_artifact
from targets.contract import (
    LOCAL,
    LOCAL_CUDA,
    ArtifactFile,
    Availability,
    CompiledArtifact,
    CompileRequest,
    Device,
    FinishRequest,
    Hardware,
    OnnxArtifact,
    Recipe,
    RunPlan,
    RuntimeVariant,
    Structure,
    TargetSpec,
)
from targets.errors import ConfigError, DeviceError, NotInstalledError
from targets.hardware.gpu_hardware import ARCHITECTURE, hardware_of_gpus
from targets.hardware.gpus import GpuProfile, gpu_profile
from targets.hardware.nvidia import detect_gpu
from targets.tensorrt.build_plan import BuildPlan, profiles_for, with_options
from targets.tensorrt.engine import build_engine
from targets.tensorrt.files import (
    ASKED_FILE,
    PLAN_FILE,
    read_structure,
    write_cache,
    write_commands,
    write_structure,
    write_text,
)
from targets.tensorrt.finishing import asked_plan, built_files, taken_files
from targets.tensorrt.gpu_hardware import (
    detected_hardware,
    only_without_float32,
    rtx_capabilities,
)
from targets.tensorrt.inspection import Asked
from targets.tensorrt.plan_header import TENSORRT_RUNTIME, Loader
from targets.tensorrt.recipes import recipes_for
from targets.tensorrt.running import (
    engine_plan,
    graph_variants,
    require_built,
    simulation_plan,
)
from targets.tensorrt.sdk import (
    TENSORRT,
    import_rtx,
    import_tensorrt,
    lacks_cuda_package,
    rtx_source,
    rtx_versions,
    tensorrt_versions,
)

TRTEXEC_TIMINGS = "trtexec.timing"
DEFAULT_CAPABILITY = "8.9"
FINISH = "exporter build BUNDLE, on the machine with the GPU"


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
        if device.name == LOCAL_CUDA:
            missing.append(f"{self.spec.name} finds this machine's GPU itself: take --device local")
        elif device.name != LOCAL:
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
        return hardware_of_gpus(wanted, f"no GPU here: prepared for {names}")

    def detected_hardware(self, device: Device) -> Hardware:
        """Return this machine's GPU, with the CPU cores that feed it.

        Raises:
            DeviceError: there is none.
        """
        return detected_hardware(device)

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
        paths = save_graph(
            built.model, folder / f"model_{request.recipe.name.replace('/', '-')}.onnx"
        )
        plan = BuildPlan(
            graph=paths[0].name,
            inputs=tuple(tensor.name for tensor in request.graph.inputs),
            profiles=profiles_for(request.calibration, request.graph.max_seq_length),
            compute_capabilities=rtx_capabilities(request.hardware, request.recipe),
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
        return read_structure(artifact.directory)

    def simulation(
        self, artifact: CompiledArtifact, graph: OnnxArtifact, pad_token_id: int, num_threads: int
    ) -> RunPlan:
        """Let ONNX Runtime run the very graph that TensorRT is given."""
        return simulation_plan(artifact, graph, pad_token_id)

    def run_plan(
        self, artifact: CompiledArtifact, graph: OnnxArtifact, pad_token_id: int, num_threads: int
    ) -> RunPlan:
        """Return what loads an engine; it is looked at before any runtime deserializes it.

        Raises:
            NotInstalledError: it is not built yet, or TensorRT is missing.
            CompileError: another TensorRT built it.
            StorageError: it is damaged, or not the file that its bundle names.
        """
        require_built(artifact, self.spec.name, FINISH)
        return engine_plan(
            artifact,
            graph,
            pad_token_id,
            module_name=self._module_name,
            loader=self._loader(),
        )

    def variants(self, plan: RunPlan, num_threads: int) -> tuple[RuntimeVariant, ...]:
        """Return CUDA graphs as another way of running an engine, where they can be had."""
        return graph_variants(plan, num_threads)

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
        plan = asked_plan(request)
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
        return built_files(self._import(), request, plan)

    def _taken(self, request: FinishRequest, plan: BuildPlan, engine: Path) -> list[ArtifactFile]:
        """Take an engine that trtexec, or a run before, has built."""
        return taken_files(request, plan, engine, self._loader())

    def _require_supported(self, gpu: GpuProfile) -> None:
        if not gpu.tensorrt:
            raise ConfigError(f"TensorRT 10 and 11 do not support {gpu.sm}")

    def _versions(self) -> dict[str, str]:
        return tensorrt_versions() | rtx_versions()

    def _write_build(self, folder: Path, plan: BuildPlan) -> list[ArtifactFile]:
        return [write_text(folder / PLAN_FILE, plan.to_json()), write_commands(folder, plan)]

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
