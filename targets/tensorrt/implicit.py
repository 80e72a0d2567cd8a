"""TensorRT 10's implicit mode from what a bundle holds: an int8 graph, and a cache or texts."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import onnx

from targets.contract import TokenSequences
from targets.errors import DeviceError, NotInstalledError
from targets.tensorrt.build_plan import BuildPlan
from targets.tensorrt.calibrator import build_calibrated, require_calibrators
from targets.tensorrt.cuda import CudaError, open_cuda
from targets.tensorrt.cuda_interface import Cuda
from targets.tensorrt.engine import Engine
from targets.tensorrt.files import CACHE_FILE
from targets.tensorrt.graph import save_graph
from targets.tensorrt.sdk import INSTALL_CUDA
from targets.tensorrt.unquantized import without_pairs


def build_from_cache(module: Any, graph: Path, cache: Path, plan: BuildPlan) -> Engine:  # noqa: ANN401
    """Build an int8 engine by TensorRT 10's implicit mode with scales that are known already.

    Args:
        module: TensorRT 10.
        graph: a Q/DQ graph; TensorRT is given the same one without its pairs.
        cache: scales by the names of that graph; stays as it is.
        plan: how; `cuda_api` says through what.

    Raises:
        ConfigError: TensorRT 11.
        CalibrationError: the cache is damaged, or TensorRT does not take it.
        CompileError: see `build_engine`.
        NotInstalledError: the CUDA package is missing.
        DeviceError: there is no GPU.
    """
    return _build(module, graph, plan, cache.read_bytes(), None)[0]


def build_from_texts(
    module: Any,  # noqa: ANN401
    graph: Path,
    tokens: TokenSequences,
    plan: BuildPlan,
) -> tuple[Engine, bytes]:
    """Build an int8 engine by TensorRT 10's implicit mode; it chooses the scales from texts.

    Args:
        module: TensorRT 10.
        graph: a Q/DQ graph; TensorRT is given the same one without its pairs.
        tokens: calibration texts, see `calibration_batches.batches_of`.
        plan: how; `cuda_api` says through what.

    Returns:
        The engine, and the scales as TensorRT wrote them.

    Raises:
        CalibrationError: too few texts, or whatever failed while TensorRT calibrated.
        ConfigError, CompileError, NotInstalledError, DeviceError: see `build_from_cache`.
    """
    return _build(module, graph, plan, None, tokens)


def _build(
    module: Any,  # noqa: ANN401
    graph: Path,
    plan: BuildPlan,
    scales: bytes | None,
    tokens: TokenSequences | None,
) -> tuple[Engine, bytes]:
    require_calibrators(module)
    with tempfile.TemporaryDirectory(prefix="implicit-") as folder:
        given, cache = Path(folder) / graph.name, Path(folder) / CACHE_FILE
        save_graph(without_pairs(onnx.load(graph)), given)
        if scales is not None:
            cache.write_bytes(scales)
        cuda = _opened(plan.cuda_api)
        try:
            engine = build_calibrated(module, given, plan, tokens, cuda, cache)
            return engine, cache.read_bytes()
        finally:
            cuda.close()


def _opened(name: str) -> Cuda:
    try:
        return open_cuda(name)
    except ImportError as error:
        raise NotInstalledError(f"no {name}", why=str(error), hint=INSTALL_CUDA) from error
    except CudaError as error:
        raise DeviceError("no GPU to calibrate on", why=str(error)) from error
