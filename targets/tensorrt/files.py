"""The files of a prepared or finished artifact, written and read."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from targets.artifacts import artifact_file
from targets.contract import ArtifactFile, ExecutedPrecision, Structure
from targets.errors import CompileError, StorageError
from targets.tensorrt.build_plan import BuildPlan, trtexec_line
from targets.tensorrt.engine import Engine
from targets.tensorrt.inspection import FUSED, LINEAR, Asked, read_layers_list, structure_of

if TYPE_CHECKING:
    import onnx

ENGINE_FILE = "model.plan"
PLAN_FILE, STRUCTURE_FILE, COMMANDS_FILE = "build_plan.json", "structure.json", "trtexec.txt"
ASKED_FILE = "layers.json"
CACHE_FILE = "calibration.cache"
CACHE_VERSION = (10, 16, 1)
"""Whose header the cache gets; a calibrator of ours takes it into whatever 10 runs."""


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


def write_text(path: Path, text: str) -> ArtifactFile:
    """Write a text file that no device needs; see `write_bytes`."""
    return write_bytes(path, text.encode("utf-8"))


def write_cache(folder: Path, model: onnx.ModelProto) -> ArtifactFile:
    """Write a Q/DQ graph's scales as TensorRT 10 writes those of its own calibrators.

    Raises:
        StorageError: the file cannot be written.
    """
    from targets.tensorrt.calibration_cache import cache_of_graph  # imports onnx

    return write_bytes(folder / CACHE_FILE, cache_of_graph(model, CACHE_VERSION).to_bytes())


def write_commands(folder: Path, plan: BuildPlan) -> ArtifactFile:
    """Write the trtexec line of each major version.

    Raises:
        StorageError: the file cannot be written.
    """
    lines = [
        f"# TensorRT {major}\n{trtexec_line(plan, ENGINE_FILE, major=major)}\n"
        for major in (10, 11)
    ]
    return write_text(folder / COMMANDS_FILE, "".join(lines))


def read_structure(folder: Path) -> Structure | None:
    """Read what a compiler made of an artifact; None where none looked at it."""
    path = folder / STRUCTURE_FILE
    if not path.is_file():
        return None
    values: dict[str, Any] = json.loads(path.read_text("utf-8"))
    rows = tuple(ExecutedPrecision(**row) for row in values.pop("rows"))
    return Structure(rows=rows, warnings=tuple(values.pop("warnings")), **values)


def write_structure(folder: Path, engine: Engine, asked: Asked, source: str) -> ArtifactFile:
    """Write what the compiler made of a graph, if all of its int8 really is.

    Raises:
        CompileError: fewer linear layers or attentions run in int8 than were quantized.
        StorageError: the file cannot be written.
    """
    found = structure_of(read_layers_list(engine.log), asked.linear, asked.attention, source)
    require_int8(found, asked.num_int8, asked.num_int8_attentions)
    return write_text(folder / STRUCTURE_FILE, json.dumps(asdict(found), indent=1))


def require_int8(found: Structure, num_int8: int, num_int8_attentions: int = 0) -> None:
    """Refuse an engine in which fewer layers run in int8 than were quantized.

    Args:
        found: what the engine is made of.
        num_int8: linear layers that were quantized.
        num_int8_attentions: attentions that were; each must be one kernel that takes int8.

    Raises:
        CompileError: says how many.
    """
    asked = ((LINEAR, num_int8, "linear layers"), (FUSED, num_int8_attentions, "attentions"))
    for kind, wanted, words in asked:
        ran = sum(row.count for row in found.rows if (row.op_type, row.dtype) == (kind, "int8"))
        if ran < wanted:
            rows = [f"{row.count} {row.op_type} in {row.dtype}" for row in found.rows]
            raise CompileError(
                f"{ran} of {wanted} {words} run in int8",
                why=f"{found.source}: {', '.join(rows)}",
                hint="Q/DQ was not fused into the products; see docs/tensorrt.md",
            )


def read_plan(path: Path) -> BuildPlan:
    """Read how an artifact's engine is built. Raises: CompileError, StorageError."""
    try:
        return BuildPlan.from_json(path.read_text("utf-8"))
    except OSError as error:
        why = error.strerror or str(error)
        raise StorageError(
            f"{path} cannot be read", why=why, hint="prepare the bundle again"
        ) from error


def read_asked(path: Path) -> Asked:
    """Read what an artifact's engine must be made of. Raises: StorageError."""
    try:
        values = json.loads(path.read_text("utf-8"))
        names = {name: tuple(values[name]) for name in ("linear", "attention")}
        return Asked(
            num_int8=int(values["num_int8"]),
            num_int8_attentions=int(
                values.get("num_int8_attentions", 0)
            ),  # older bundles say nothing
            **names,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"{path} cannot be read", why=str(error), hint="prepare the bundle again"
        ) from error
