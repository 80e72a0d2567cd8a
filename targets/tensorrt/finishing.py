"""The second step: an engine built on the machine of its GPU, or taken as somebody built it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from targets.contract import ArtifactFile, FinishRequest
from targets.errors import ConfigError
from targets.tensorrt.build_plan import BuildPlan, with_options
from targets.tensorrt.engine import Engine, build_engine
from targets.tensorrt.files import (
    ASKED_FILE,
    CACHE_FILE,
    ENGINE_FILE,
    PLAN_FILE,
    read_asked,
    read_plan,
    write_bytes,
    write_structure,
)
from targets.tensorrt.gpu_hardware import capability_of
from targets.tensorrt.inspection import read_layers_list
from targets.tensorrt.plan_header import Loader, require_plan
from targets.tensorrt.timing_cache import TimingCache


def asked_plan(request: FinishRequest) -> BuildPlan:
    """Return the prepared build plan with what is asked for now.

    Raises:
        ConfigError: an option that TensorRT's builder does not have.
        CompileError, StorageError: see `read_plan`.
    """
    plan = with_options(read_plan(request.artifact.directory / PLAN_FILE), request.options)
    if request.calibration is None:
        return plan
    return replace(plan, calibration_sha256=request.calibration.sha256)


def built_files(module: Any, request: FinishRequest, plan: BuildPlan) -> list[ArtifactFile]:  # noqa: ANN401 - untyped
    """Build the engine by TensorRT's own builder.

    Args:
        module: TensorRT.
        request: what is finished.
        plan: how it is built.

    Returns:
        The engine, and what it is made of where its log tells.

    Raises:
        CompileError: TensorRT refuses the graph, or fewer layers run in int8 than were quantized.
        ConfigError, CalibrationError: of TensorRT 10's own calibrator, see `implicit`.
        StorageError: a file cannot be read or written.
    """
    timings = None
    if request.keep_dir is not None:
        gpu = f"{request.hardware.model_name} {request.hardware.microarchitecture}"
        timings = TimingCache.for_gpu(request.keep_dir, module.__version__, gpu)
    prepared, folder = request.artifact.directory, request.output_dir
    # the GPU at hand decides, not the one that was prepared for
    here = replace(plan, compute_capabilities=())
    scales = None
    if plan.calibrator == "none" or not (prepared / CACHE_FILE).is_file():
        engine = build_engine(module, prepared / plan.graph, here, timings)
    else:  # float recipes have no cache, and nothing to calibrate
        engine, scales = _implicit(module, request, here)
    files = [write_bytes(folder / ENGINE_FILE, engine.data, on_device=True)]
    if scales is not None:
        files.append(write_bytes(folder / CACHE_FILE, scales))
    if read_layers_list(engine.log):  # else the session's inspector must tell
        source = f"TensorRT {module.__version__}, {request.hardware.model_name}"
        asked = read_asked(prepared / ASKED_FILE)
        files.append(write_structure(folder, engine, asked, source))
    return files


def _implicit(
    module: Any,  # noqa: ANN401
    request: FinishRequest,
    plan: BuildPlan,
) -> tuple[Engine, bytes | None]:
    """Let TensorRT 10 take the scales of the cache, or choose them from texts and keep them."""
    from targets.tensorrt.implicit import build_from_cache, build_from_texts  # imports onnx

    prepared = request.artifact.directory
    if plan.calibrator == "cache":
        cache = prepared / CACHE_FILE
        return build_from_cache(module, prepared / plan.graph, cache, plan), None
    if request.calibration is None:
        raise ConfigError(
            "TensorRT's own calibrator was asked for, and no texts were given",
            hint="`exporter build --calibrator tensorrt` reads them (--calibration)",
        )
    return build_from_texts(module, prepared / plan.graph, request.calibration, plan)


def taken_files(
    request: FinishRequest, plan: BuildPlan, engine: Path, loader: Loader
) -> list[ArtifactFile]:
    """Take an engine that trtexec, or a run before, has built.

    Args:
        request: what is finished.
        plan: how it was built.
        engine: the file.
        loader: what shall load it.

    Raises:
        CompileError: it is of another runtime, version or GPU.
        StorageError: it is damaged, or cannot be written.
    """
    require_plan(
        engine,
        loader,
        version_compatible=plan.version_compatible,
        capability=capability_of(request.hardware),
    )
    place = request.output_dir / ENGINE_FILE
    return [write_bytes(place, engine.read_bytes(), on_device=True)]
