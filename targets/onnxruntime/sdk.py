"""Import of ONNX Runtime on use, without its chatter, and the proof that it takes a graph."""

from __future__ import annotations

import importlib
from importlib import metadata
from pathlib import Path
from typing import Any

from targets.errors import CompileError, NotInstalledError

EXTRA = "onnxruntime"
INSTALL = f"pip install 'embedding-exporter[{EXTRA}]'"
DISTRIBUTION = "onnxruntime"

_FATAL = 4
"""Log level that leaves only what ends the process; errors are raised besides being logged."""


def import_onnxruntime() -> Any:  # noqa: ANN401 - onnxruntime is untyped
    """Import ONNX Runtime and keep its log off the terminal.

    Raises:
        NotInstalledError: it is missing or broken.
    """
    try:
        onnxruntime = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise NotInstalledError(
            "onnxruntime cannot be imported", why=str(error), hint=INSTALL
        ) from error
    onnxruntime.set_default_logger_severity(_FATAL)
    return onnxruntime


def versions() -> dict[str, str]:
    """Return the version of ONNX Runtime, if it is installed."""
    try:
        return {DISTRIBUTION: metadata.version(DISTRIBUTION)}
    except metadata.PackageNotFoundError:
        return {}


def require_loadable(path: Path, recipe: str) -> None:
    """Let ONNX Runtime read a graph and find a kernel for every node.

    Args:
        path: the `.onnx` file.
        recipe: its recipe's name, for the error.

    Raises:
        CompileError: ONNX Runtime refuses it.
        NotInstalledError: ONNX Runtime is missing.
    """
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own classes share no base but Exception
        raise CompileError(
            f"ONNX Runtime refuses the graph of recipe {recipe!r}",
            why=first_line(error),
            hint="another recipe may still do; `exporter targets onnxruntime` lists them",
        ) from error


def first_line(error: Exception) -> str:
    """Return what an exception says, without its type and in one line."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))
