"""TensorRT 10's implicit mode from what a bundle holds: an int8 graph and a calibration cache."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import onnx

from targets.errors import DeviceError, NotInstalledError
from targets.tensorrt.build_plan import BuildPlan
from targets.tensorrt.calibrator import build_calibrated, require_calibrators
from targets.tensorrt.cuda import CudaError, open_cuda
from targets.tensorrt.cuda_interface import Cuda
from targets.tensorrt.engine import Engine
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
    require_calibrators(module)
    with tempfile.TemporaryDirectory(prefix="implicit-") as folder:
        given, copied = Path(folder) / graph.name, Path(folder) / cache.name
        save_graph(without_pairs(onnx.load(graph)), given)
        copied.write_bytes(cache.read_bytes())
        cuda = _opened(plan.cuda_api)
        try:
            return build_calibrated(module, given, plan, None, cuda, copied)
        finally:
            cuda.close()


def _opened(name: str) -> Cuda:
    try:
        return open_cuda(name)
    except ImportError as error:
        raise NotInstalledError(f"no {name}", why=str(error), hint=INSTALL_CUDA) from error
    except CudaError as error:
        raise DeviceError("no GPU to calibrate on", why=str(error)) from error
