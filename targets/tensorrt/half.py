"""The FP32 graph with the transformer in float16, as TensorRT fuses it.

Everything that `last_hidden_state` depends on is float16, with one Cast back; pooling, dense
heads and normalization behind it stay in float32 (a clip at 1e-9 would be zero in float16).
LayerNormalization keeps its sums in float32 (`stash_type`). The number that masks padding,
-3.4e38 in exported graphs, would be minus infinity, and a row in which everything is masked would
be NaN: it becomes -32768, which leaves room for the scores that are added to it.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from targets.errors import CompileError
from targets.quantization.graph import GraphIndex, attribute, tensors_read, to_array
from targets.quantization.layers import HIDDEN_STATE, hidden_state

MASKED = -32768.0
"""Behind softmax it is zero; with any score added it is still a float16 number."""
_LARGEST = float(np.finfo(np.float16).max)
_HALF, _FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT
_FLOAT_INPUTS_ONLY = {"LayerNormalization": (1, 2)}


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose transformer computes in float16.

    Names of nodes and tensors stay what they are, so that layers and plans fit both graphs.

    Args:
        model: a float32 graph without Q/DQ nodes, its weights in memory.

    Raises:
        CompileError: it has no output `last_hidden_state`, or a weight beyond float16's range.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    index = GraphIndex(graph)
    hidden = hidden_state(index)
    inside = index.ancestors(hidden)
    nodes = [node for node in graph.node if node.name in inside]
    outside = [node for node in graph.node if node.name not in inside]
    _halve_stored(graph, nodes, outside, index)
    for node in nodes:
        _halve_attributes(node)
    made = {out for node in nodes for out in node.output if out}
    halves = made & _float_tensors(model)
    _cast_back(graph, hidden, halves, outside)
    _describe(graph, halves)
    return changed


def _float_tensors(model: onnx.ModelProto) -> set[str]:
    """Return the names of all float32 tensors, by shape inference."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=False, data_prop=False)
    graph = inferred.graph
    values = (*graph.value_info, *graph.output, *graph.input)
    return {one.name for one in values if one.type.tensor_type.elem_type == _FLOAT}


def _halve_stored(
    graph: onnx.GraphProto,
    inside: Iterable[onnx.NodeProto],
    outside: Iterable[onnx.NodeProto],
    index: GraphIndex,
) -> None:
    """Store in float16 what only the transformer reads; what others read too is had twice."""
    wanted = {name for node in inside for name in tensors_read(node)}
    kept = {name for node in outside for name in tensors_read(node)} | index.outputs
    stored = {one.name: one for one in graph.initializer}
    for name in sorted(wanted & set(stored)):
        tensor = stored[name]
        if tensor.data_type != _FLOAT:
            continue
        if name in kept:
            copy = f"{name}_half"
            graph.initializer.append(_half(to_array(tensor), copy))
            for node in inside:
                for place, read in enumerate(node.input):
                    if read == name:
                        node.input[place] = copy
        else:
            tensor.CopyFrom(_half(to_array(tensor), name))


def _half(values: NDArray[np.generic], name: str) -> onnx.TensorProto:
    floats = np.asarray(values, np.float32)
    if floats.size == 1 or np.unique(floats).size <= 2:  # a constant of the graph, no weight
        floats = np.where(floats <= -_LARGEST, np.float32(MASKED), floats)
        floats = np.where(floats >= _LARGEST, np.float32(-MASKED), floats)
    if not np.isfinite(floats).all() or np.abs(floats).max(initial=0.0) > _LARGEST:
        raise CompileError(
            f"{name!r} does not fit into float16",
            why=f"its largest value is {np.abs(floats).max():g}, float16 ends at {_LARGEST:g}",
            hint="--precision float32",
        )
    return numpy_helper.from_array(floats.astype(np.float16), name)


def _halve_attributes(node: onnx.NodeProto) -> None:
    if node.op_type == "Cast" and attribute(node, "to", 0) == _FLOAT:
        for one in node.attribute:
            if one.name == "to":
                one.i = _HALF
    for one in node.attribute:
        if one.type == onnx.AttributeProto.TENSOR and one.t.data_type == _FLOAT:
            one.t.CopyFrom(_half(to_array(one.t), one.t.name))


def _cast_back(
    graph: onnx.GraphProto, hidden: str, halves: set[str], outside: list[onnx.NodeProto]
) -> None:
    """Give what is read outside in float32: the hidden state, and anything else that is shared."""
    shared = {name for node in outside for name in tensors_read(node)} & halves
    outputs = {one.name for one in graph.output} & halves
    for name in sorted(shared | outputs):
        inner = f"{name}_half"
        for node in graph.node:
            for place, out in enumerate(node.output):
                if out == name:
                    node.output[place] = inner
            if node not in outside:
                for place, read in enumerate(node.input):
                    if read == name:
                        node.input[place] = inner
        at = max(i for i, node in enumerate(graph.node) if inner in node.output)
        label = HIDDEN_STATE if name == hidden else name
        cast = helper.make_node("Cast", [inner], [name], name=f"{label}/Cast_back", to=_FLOAT)
        graph.node.insert(at + 1, cast)
        halves.discard(name)
        halves.add(inner)


def _describe(graph: onnx.GraphProto, halves: set[str]) -> None:
    stored = {one.name: one.data_type for one in graph.initializer}
    for value in graph.value_info:
        if value.name in halves:
            value.type.tensor_type.elem_type = _HALF
        elif value.name in stored:
            value.type.tensor_type.elem_type = stored[value.name]
