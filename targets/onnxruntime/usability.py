"""ONNX Runtime's own word on what phone accelerators (NNAPI, CoreML) can take of a graph.

It names the operators that each of them leaves to the CPU and how many pieces that makes of the
graph. It rests on lists of operators (`onnxruntime/tools/mobile_helpers/*_supported_ops.md`): what
it calls supported is not measured. The CPU runs every graph that was converted.
"""

from __future__ import annotations

from pathlib import Path

from targets.errors import StorageError
from targets.onnxruntime.tools import run_tool

USABILITY_REPORT = "usability.txt"

_LEVEL = "INFO:"


def write_usability(model: Path, report: Path) -> None:
    """Write ONNX Runtime's mobile usability report of a graph.

    Args:
        model: the `.onnx`, before it is optimized: the operators that accelerators are asked for.
        report: the text file; its folder exists.

    Raises:
        CompileError: ONNX Runtime cannot read the graph, or its shapes contradict each other.
        StorageError: the file cannot be written.
    """
    doing = f"checking {model.name} for phones"
    printed = run_tool("check_onnx_model_mobile_usability", [str(model)], doing)
    text = printed.replace(str(model), model.name)
    try:
        report.write_text("\n".join(_without_level(line) for line in text.splitlines()) + "\n")
    except OSError as error:
        raise StorageError(
            f"{report} cannot be written", why=str(error), hint="free space"
        ) from error


def _without_level(line: str) -> str:
    return line.removeprefix(_LEVEL).removeprefix("  ").rstrip()
