"""TensorRT for RTX: engines built ahead of time on any machine, for chosen GPUs."""

from __future__ import annotations

from pathlib import Path

from targets.contract import ArtifactFile, Availability, Device, TargetSpec
from targets.errors import ConfigError, NotInstalledError
from targets.hardware.gpus import GpuProfile, gpu_profiles
from targets.quantization.layers import EncoderLayers
from targets.tensorrt.build_plan import BuildPlan
from targets.tensorrt.engine import build_engine
from targets.tensorrt.sdk import INSTALL_RTX, RTX, import_rtx, rtx_versions
from targets.tensorrt.target import (
    ARCHITECTURE,
    TensorRtTarget,
    write_bytes,
    write_structure,
)

ENGINE_FILE = "model.plan"
NOT_RUN = "running engines needs an RTX GPU; this version builds them and does not run them"


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

    def probe(self, device: Device) -> Availability:
        """Say what is missing to run engines; never raises."""
        missing = (*self.lacking_to_prepare(), NOT_RUN)
        return Availability(ok=False, missing=missing, tool_versions=self._versions())

    def lacking_to_prepare(self) -> tuple[str, ...]:
        """Say whether the compiler is missing."""
        try:
            import_rtx()
        except NotInstalledError as error:
            return (f"{error.what}: {INSTALL_RTX} ({error.why})",)
        return ()

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
        return [write_bytes(folder / "build_plan.json", plan.to_json().encode("utf-8"))]

    def _compiled(
        self, folder: Path, graph: Path, plan: BuildPlan, layers: EncoderLayers, num_int8: int
    ) -> list[ArtifactFile]:
        module = import_rtx()
        engine = build_engine(module, graph, plan)
        structure = write_structure(folder, engine, layers, num_int8, module)
        return [write_bytes(folder / ENGINE_FILE, engine.data, on_device=True), structure]
