"""TensorRT for RTX: engines built ahead of time on any machine, for chosen GPUs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from targets.contract import (
    ArtifactFile,
    CompiledArtifact,
    CompileRequest,
    FinishRequest,
    TargetSpec,
)
from targets.errors import CompileError, ConfigError, NotInstalledError
from targets.hardware.gpu_hardware import ARCHITECTURE
from targets.hardware.gpus import GpuProfile, gpu_profiles
from targets.tensorrt.build_plan import SESSION_OPTIONS, BuildPlan
from targets.tensorrt.engine import build_engine
from targets.tensorrt.files import (
    ENGINE_FILE,
    PLAN_FILE,
    STRUCTURE_FILE,
    write_bytes,
    write_structure,
    write_text,
)
from targets.tensorrt.gpu_hardware import only_without_float32
from targets.tensorrt.inspection import Asked
from targets.tensorrt.plan_header import RTX_RUNTIME
from targets.tensorrt.sdk import INSTALL_RTX, RTX, import_rtx, rtx_source, rtx_versions
from targets.tensorrt.target import TensorRtTarget


class TensorRtRtxTarget(TensorRtTarget):
    """Builds real engines without a GPU."""

    spec = TargetSpec(
        name=RTX,
        vendor="NVIDIA",
        runtime="TensorRT for RTX",
        precisions=("float32", "float16", "int8"),
        max_opset=23,
        artifact_kind="engine, with its graph",
        extra=RTX,
        architectures=("x86_64", ARCHITECTURE),
    )

    _graph_on_device = False

    _has_calibrators = False
    _module_name = "tensorrt_rtx"
    _runtime = RTX_RUNTIME

    def _import(self) -> Any:  # noqa: ANN401 - untyped
        return import_rtx()

    def lacking_to_prepare(self) -> tuple[str, ...]:
        """Say whether the compiler is missing."""
        try:
            self._import()
        except NotInstalledError as error:
            return (f"{error.what}: {INSTALL_RTX} ({error.why})",)
        return ()

    def compile(self, request: CompileRequest) -> CompiledArtifact:
        """Build the engine ahead of time; see `TensorRtTarget.compile`."""
        if only_without_float32(request.hardware, request.recipe):
            raise CompileError(
                f"TensorRT for RTX has no float32 products for Turing ({request.recipe.name})",
                why="its compiler refuses them for compute capability 7.5",
                hint="take float16 or int8, or name a later GPU with --compute-capability",
            )
        return super().compile(request)

    def _require_supported(self, gpu: GpuProfile) -> None:
        if not gpu.tensorrt_rtx:
            known = ", ".join(one.compute_capability for one in gpu_profiles() if one.tensorrt_rtx)
            raise ConfigError(
                f"TensorRT for RTX does not build for compute capability {gpu.compute_capability}",
                why=f"it builds for {known}",
                hint="--compute-capability with one of those, or --target tensorrt",
            )

    def _versions(self) -> dict[str, str]:
        return rtx_versions()

    def _write_build(self, folder: Path, plan: BuildPlan) -> list[ArtifactFile]:
        return [write_text(folder / PLAN_FILE, plan.to_json())]

    def _built(self, request: FinishRequest, plan: BuildPlan) -> list[ArtifactFile]:
        """Take the engine that was built ahead of time, if it was built for this GPU."""
        if late := sorted(request.options.keys() - SESSION_OPTIONS):
            raise ConfigError(
                f"{self.spec.name} takes no build options: {', '.join(late)}",
                why="its engine was built when the bundle was prepared",
            )
        prepared = request.artifact.directory
        files = self._taken(request, plan, prepared / ENGINE_FILE)
        structure = (prepared / STRUCTURE_FILE).read_bytes()
        return [*files, write_bytes(request.output_dir / STRUCTURE_FILE, structure)]

    def _compiled(
        self, folder: Path, graph: Path, plan: BuildPlan, asked: Asked
    ) -> list[ArtifactFile]:
        module = self._import()
        engine = build_engine(module, graph, plan)
        structure = write_structure(folder, engine, asked, rtx_source(module))
        return [write_bytes(folder / ENGINE_FILE, engine.data, on_device=True), structure]
