"""ONNX → OpenVINO's graph → IR files, with names that do not change from run to run.

OpenVINO's Python API is untyped, hence `Any`.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

from targets.errors import CompileError, StorageError
from targets.openvino.sdk import import_openvino

MODEL_FILE = "openvino_model.xml"
WEIGHTS_FILE = "openvino_model.bin"

GROUP_SIZE = "DYNAMIC_QUANTIZATION_GROUP_SIZE"
"""OpenVINO's property; the CPU plug-in also takes it from an IR's `runtime_options`."""

_NUMBERED = re.compile(r"([A-Z]\w*)_\d+")
"""Names that OpenVINO makes up: the type and a counter of the whole process."""


def read_graph(path: Path) -> Any:  # noqa: ANN401
    """Read an ONNX graph as OpenVINO's own converter does, without its usage report.

    Common patterns are fused (`apply_moc_transformations`, the step that
    `openvino.convert_model` takes after reading); names are unique and stable.

    Raises:
        CompileError: OpenVINO cannot read the graph.
        NotInstalledError: OpenVINO is missing.
    """
    openvino = import_openvino()
    from openvino._offline_transformations import apply_moc_transformations

    try:
        model = openvino.Core().read_model(path)
        apply_moc_transformations(model, cf=False, smart_reshape=True)
    except RuntimeError as error:
        raise CompileError(f"OpenVINO cannot read {path}", why=first_line(error)) from error
    settle_names(model)
    return model


def settle_names(model: Any) -> None:  # noqa: ANN401
    """Give nodes with made-up or repeated names stable ones, numbered in execution order.

    The counters behind made-up names ("Constant_4711") run through the whole process, so
    the same graph read twice would give different files.
    """
    nodes = model.get_ordered_ops()
    kept = [n.get_friendly_name() for n in nodes if not _NUMBERED.fullmatch(n.get_friendly_name())]
    taken = set(kept)
    repeats: Counter[str] = Counter()
    for node in nodes:
        name = str(node.get_friendly_name())
        made_up = _NUMBERED.fullmatch(name)
        if made_up:
            node.set_friendly_name(_next_free(made_up[1], repeats, taken))
        elif repeats[name]:
            node.set_friendly_name(_next_free(name, repeats, taken))
        else:
            repeats[name] += 1


def _next_free(stem: str, counts: Counter[str], taken: set[str]) -> str:
    while True:
        counts[stem] += 1
        name = f"{stem}.{counts[stem]}"
        if name not in taken:
            taken.add(name)
            return name


def write_ir(
    model: Any,  # noqa: ANN401
    directory: Path,
    *,
    half_weights: bool,
    activation_group: int = 0,
) -> tuple[Path, Path]:
    """Write the IR and return its files, `.xml` first.

    Args:
        model: the graph.
        directory: an existing folder.
        half_weights: store float weights as float16. They are expanded when the model is
            loaded; what is run in bfloat16 (8 bits of mantissa) loses nothing by float16's 11.
        activation_group: run-time quantization of activations, 0 for none. It is kept in the
            IR, so that every loader runs what was measured; OpenVINO's own default is 32.

    Raises:
        StorageError: the files cannot be written.
    """
    openvino = import_openvino()
    settle_names(model)
    model.set_rt_info(str(activation_group), ["runtime_options", GROUP_SIZE])
    path = directory / MODEL_FILE
    try:
        openvino.save_model(model, path, compress_to_fp16=half_weights)
    except RuntimeError as error:
        raise StorageError(
            f"{path} cannot be written", why=first_line(error), hint="free space, check permissions"
        ) from error
    return path, directory / WEIGHTS_FILE


def first_line(error: Exception) -> str:
    """Return the first line of an SDK's message that says something."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line and not line.startswith("Exception from")), "")
