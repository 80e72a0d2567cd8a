"""TensorRT on NVIDIA GPUs, prepared anywhere: graph, build plan, and the structure it gets."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
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
    Structure,
    TargetSpec,
)
from targets.errors import CompileError, ConfigError, NotInstalledError, StorageError
from targets.hardware.gpus import GpuProfile, gpu_profile, gpu_profiles
from targets.quantization.layers import EncoderLayers
from targets.tensorrt.build_plan import BuildPlan, profiles_for, trtexec_line
from targets.tensorrt.engine import Engine, build_engine
from targets.tensorrt.graph import build_graph, save_graph
from targets.tensorrt.inspection import LINEAR, read_layers_list, structure_of
from targets.tensorrt.recipes import TENSOR_CORE, recipes_for
from targets.tensorrt.sdk import (
    INSTALL_TENSORRT,
    RTX,
    TENSORRT,
    import_rtx,
    import_tensorrt,
    rtx_versions,
    tensorrt_versions,
)

SIMULATION = Path(__file__).with_name("simulation.py")
EMBEDDING = "sentence_embedding"
PLAN_FILE, STRUCTURE_FILE, COMMANDS_FILE = "build_plan.json", "structure.json", "trtexec.txt"
ARCHITECTURE = "cuda"
DEFAULT_CAPABILITY = "8.9"
NOT_TIMED = (
    "running engines on a GPU is not part of this version: artifacts are prepared, and built there "
    f"with the trtexec line in {COMMANDS_FILE}"
)
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
        extra=RTX,
        architectures=("x86_64", "aarch64", ARCHITECTURE),
    )

    _graph_on_device = True

    def probe(self, device: Device) -> Availability:
        """Say what is missing to run engines; never raises."""
        missing = [NOT_TIMED]
        try:
            import_tensorrt()
        except NotInstalledError as error:
            missing.insert(0, f"{error.what}: {INSTALL_TENSORRT}")
        return Availability(ok=False, missing=tuple(missing), tool_versions=self._versions())

    def candidates(self, graph: OnnxArtifact | None, hardware: Hardware) -> tuple[Recipe, ...]:
        """Return the recipes for this GPU, the FP32 baseline first."""
        return recipes_for(hardware)

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
        formats = set.intersection(*(set(gpu.tensor_formats) for gpu in wanted))
        names = [gpu.sm for gpu in wanted]
        return Hardware(
            architecture=ARCHITECTURE,
            vendor=self.spec.vendor,
            model_name=f"no GPU here: prepared for {', '.join(names)}",
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
        started = time.perf_counter()
        folder = request.output_dir
        model, layers, num_int8 = build_graph(request)
        paths = save_graph(model, folder / f"model_{_file_stem(request.recipe)}.onnx")
        plan = BuildPlan(
            graph=paths[0].name,
            inputs=tuple(tensor.name for tensor in request.graph.inputs),
            profiles=profiles_for(request.calibration, request.graph.max_seq_length),
            compute_capabilities=_capabilities(request.hardware),
        )
        files = [artifact_file(path, on_device=self._graph_on_device) for path in paths]
        files += self._write_build(folder, plan)
        files += self._compiled(folder, paths[0], plan, layers, num_int8)
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
        """Refuse: see `NOT_TIMED`. Raises: NotInstalledError."""
        raise NotInstalledError(f"{self.spec.name} engines cannot be run here", why=NOT_TIMED)

    def finish(self, request: FinishRequest) -> CompiledArtifact:
        """Build the engine by TensorRT's own builder on the machine of the GPU.

        Raises:
            CompileError: TensorRT refuses the graph, or the plan cannot be read.
            NotInstalledError: TensorRT is missing.
        """
        raise NotInstalledError(
            f"{self.spec.name} engines cannot be finished by this version", why=NOT_TIMED
        )

    def ship(self, artifact: CompiledArtifact) -> tuple[tuple[str, str], ...]:
        """Put everything into a folder of the target's own."""
        return tuple((file.path, f"{self.spec.name}/{file.path}") for file in artifact.files)

    # -------------------------------------------------------------------------- the parts

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
        return [_written(folder / name, text) for name, text in texts.items()]

    def _compiled(
        self, folder: Path, graph: Path, plan: BuildPlan, layers: EncoderLayers, num_int8: int
    ) -> list[ArtifactFile]:
        """Check the structure by TensorRT for RTX, if it is installed."""
        try:
            module = import_rtx()
        except NotInstalledError:
            return []
        engine = build_engine(module, graph, plan)
        return [write_structure(folder, engine, layers, num_int8, module)]


def write_bytes(path: Path, data: bytes, *, on_device: bool = False) -> ArtifactFile:
    """Write a file of an artifact; a device needs none but an engine.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        path.write_bytes(data)
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written", why=str(error), hint="free space"
        ) from error
    return artifact_file(path, on_device=on_device)


def _written(path: Path, text: str) -> ArtifactFile:
    return write_bytes(path, text.encode("utf-8"))


def write_structure(
    folder: Path,
    engine: Engine,
    layers: EncoderLayers,
    num_int8: int,
    module: Any,  # noqa: ANN401
) -> ArtifactFile:
    """Write what the compiler made of a graph, if all of its int8 really is.

    Raises:
        CompileError: fewer linear layers run in int8 than were quantized.
        StorageError: the file cannot be written.
    """
    found = structure_of(
        read_layers_list(engine.log),
        [layer.node for layer in layers.linears],
        layers.attention,
        f"TensorRT for RTX {module.__version__}, built without a GPU",
    )
    require_int8(found, num_int8)
    return _written(folder / STRUCTURE_FILE, json.dumps(asdict(found), indent=1))


def require_int8(found: Structure, num_int8: int) -> None:
    """Refuse an engine in which fewer linear layers run in int8 than were quantized.

    Raises:
        CompileError: says how many.
    """
    ran = sum(row.count for row in found.rows if (row.op_type, row.dtype) == (LINEAR, "int8"))
    if ran < num_int8:
        rows = [f"{row.count} {row.op_type} in {row.dtype}" for row in found.rows]
        raise CompileError(
            f"{ran} of {num_int8} linear layers run in int8",
            why=f"{found.source}: {', '.join(rows)}",
            hint="Q/DQ was not fused into the products; see docs/tensorrt.md",
        )


def _file_stem(recipe: Recipe) -> str:
    return recipe.name.replace("/", "-")


def _capabilities(hardware: Hardware) -> tuple[str, ...]:
    """Return those that RTX can build for, of the device that is prepared for."""
    return tuple(
        gpu.compute_capability
        for gpu in gpu_profiles()
        if gpu.sm in hardware.features and gpu.tensorrt_rtx
    )
