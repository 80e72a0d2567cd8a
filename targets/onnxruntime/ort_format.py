"""The ORT format and what a minimal build of ONNX Runtime must contain to run it.

The graph is optimized here, once, and stored as it will run ("Fixed" style): a minimal build has
no optimizer. The "Runtime" style, which keeps some optimizations for the device, gives files that
do not load for graphs with Q/DQ nodes (ONNX Runtime 1.32).
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from targets.errors import CompileError, StorageError
from targets.onnxruntime.ort_bytes import settle_bytes
from targets.onnxruntime.tools import run_tool

OPERATORS_CONFIG = "required_operators_and_types.config"

_LEVEL = {"ORT_CONVERT_ONNX_MODELS_TO_ORT_OPTIMIZATION_LEVEL": "all"}
"""The variable that the converter takes its level from; "all" is its default.

With target platform arm it leaves out what suits one instruction set only (NchwcTransformer), and
fuses Q/DQ around signed activations as ONNX Runtime does on ARM.
"""


def convert(model: Path, ort_model: Path, config: Path) -> None:
    """Write a graph in ORT format, for ARM, with the list of operators that it needs.

    The same graph gives the same bytes.

    Args:
        model: the `.onnx`.
        ort_model: where the `.ort` goes; its folder exists.
        config: where the operators and the types that they are used with go, as
            `--include_ops_by_config` of ONNX Runtime's build takes them; its folder exists.

    Raises:
        CompileError: ONNX Runtime refuses the graph; `why` carries its words.
        StorageError: a file cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="ort-format-") as folder:
        arguments = (
            *("--output_dir", folder),
            *("--optimization_style", "Fixed"),
            *("--target_platform", "arm"),
            "--enable_type_reduction",
            str(model),
        )
        doing = f"converting {model.name} to ORT format"
        run_tool("convert_onnx_models_to_ort", arguments, doing, _LEVEL)
        made = Path(folder) / f"{model.stem}.ort"
        listed = Path(folder) / f"{model.stem}.{OPERATORS_CONFIG}"
        if not (made.is_file() and listed.is_file()):
            raise CompileError(f"{doing} failed", why="the converter wrote no file and no error")
        settle_bytes(made)
        try:
            ort_model.write_bytes(made.read_bytes())
            config.write_text(_without_paths(listed.read_text("utf-8"), ort_model.name), "utf-8")
        except OSError as error:
            raise StorageError(
                f"{ort_model} cannot be written", why=str(error), hint="free space"
            ) from error


def _without_paths(config: str, name: str) -> str:
    """Name the model in the leading comment, not the folder that it was made in."""
    lines = [line for line in config.splitlines() if not line.startswith("#")]
    return "\n".join([f"# Operators and types of {name}", *lines]) + "\n"
