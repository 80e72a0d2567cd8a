"""Large embedding tables stored in fewer bytes, made float again after the lookup.

int8: one scale for each row. Rows are looked up in the integers, and their scales in a second
table; Cast and Mul make them float. A DequantizeLinear in front of the lookup would be as small,
but ONNX Runtime 1.32 then expands the whole table at every call: 30,522 × 384, one text of 16
tokens, two threads: 6,700 µs instead of 8 µs (float32: 6 µs). OpenVINO 2026.4 takes 80 µs either
way. float16: lookup, then Cast.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from targets.errors import CompileError
from targets.quantization.editing import GraphEditor
from targets.quantization.graph import attribute, module_path, to_floats
from targets.quantization.integers import round_weight, weight_scale
from targets.quantization.layers import EmbeddingTable

LARGE_TABLE = 1024
"""Rows; position and token-type tables are below it and cost nothing to keep in float."""

_ROWS = 0


def store_embeddings(
    editor: GraphEditor,
    tables: Sequence[EmbeddingTable],
    precision: Literal["float16", "int8"],
) -> None:
    """Store every large table in another precision.

    A table that something other than lookups reads (an output layer tied to it that stays in
    float) is left as it is: the float values would have to be kept beside the small ones.

    Args:
        editor: of the graph; linear layers that share a table are quantized already.
        tables: lookups in the graph.
        precision: how tables are stored.

    Raises:
        CompileError: a table has values that float16 or int8 cannot stand for.
    """
    for weight in dict.fromkeys(one.weight for one in tables if one.num_rows >= LARGE_TABLE):
        lookups = editor.readers(weight)
        if not all(_looks_up(node, weight) for node in lookups):
            continue
        values = to_floats(editor.index.tensors[weight])
        if not np.isfinite(values).all():
            raise CompileError(f"the embedding table {weight!r} has values that are not finite")
        if precision == "int8":
            _store_int8(editor, weight, values, lookups)
        elif values.dtype == np.float32:
            _store_float16(editor, weight, values, lookups)
        editor.drop_unread(weight)


def _looks_up(node: onnx.NodeProto, weight: str) -> bool:
    return (
        node.op_type == "Gather"
        and attribute(node, "axis", 0) == 0
        and node.input[0] == weight != node.input[1]
    )


def _store_int8(
    editor: GraphEditor,
    weight: str,
    values: NDArray[np.floating],
    lookups: Sequence[onnx.NodeProto],
) -> None:
    scale = weight_scale(values, _ROWS)
    integers = editor.store(f"{weight}_quantized", round_weight(values, scale, _ROWS))
    scales = editor.store(f"{weight}_scale", scale[:, None])
    to = int(helper.np_dtype_to_tensor_dtype(values.dtype))
    for node in lookups:
        path, result, ids = module_path(node.name), node.output[0], node.input[1]
        rows = _look_up(editor, node, integers, TensorProto.INT8)
        steps, floats = editor.unique(f"{result}_scale"), editor.unique(f"{result}_cast")
        editor.describe(floats, result, to)
        place = node.name
        editor.insert("Cast", path, (rows,), floats, after=place, to=to)
        editor.insert("Gather", path, (scales, ids), steps, after=place, axis=0)
        editor.insert("Mul", path, (floats, steps), result, after=place)


def _store_float16(
    editor: GraphEditor,
    weight: str,
    values: NDArray[np.floating],
    lookups: Sequence[onnx.NodeProto],
) -> None:
    largest = float(np.abs(values).max(initial=0.0))
    if largest > float(np.finfo(np.float16).max):
        raise CompileError(
            f"the embedding table {weight!r} does not fit into float16",
            why=f"its largest value is {largest:g}",
            hint="keep the embeddings in float32, or store them in int8",
        )
    halves = editor.store(f"{weight}_float16", values.astype(np.float16))
    for node in lookups:
        path, result = module_path(node.name), node.output[0]
        rows = _look_up(editor, node, halves, TensorProto.FLOAT16)
        editor.insert("Cast", path, (rows,), result, after=node.name, to=TensorProto.FLOAT)


def _look_up(editor: GraphEditor, node: onnx.NodeProto, table: str, elem_type: int) -> str:
    """Let a lookup read another table; return its result, whose old name is free again."""
    result = node.output[0]
    rows = editor.unique(f"{result}_quantized")
    node.input[0] = table
    node.output[0] = rows
    editor.describe(rows, result, elem_type)
    return rows
