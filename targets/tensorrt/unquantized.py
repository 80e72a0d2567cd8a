"""A Q/DQ graph without its pairs: what TensorRT 10's implicit mode is given.

Smoothing, float16 and every name stay; weights are the rounded ones. So the scales that TensorRT
keeps for a tensor stand beside those of the pair that was there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from targets.quantization.graph import GraphIndex, attribute, tensors_read, to_array

_Q, _DQ = "QuantizeLinear", "DequantizeLinear"


def without_pairs(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy in which activations are not quantized and weights are stored in float.

    Args:
        model: a graph of `graph.build_graph`, its weights in memory.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    index = GraphIndex(graph)
    renamed: dict[str, str] = {}
    for node in list(graph.node):
        if node.op_type not in (_Q, _DQ):
            continue
        if node.op_type == _DQ and index.is_constant(node.input[0]):
            graph.initializer.append(_dequantized(node, index))
        elif node.op_type == _DQ:
            renamed[node.output[0]] = index.producers[node.input[0]].input[0]
        graph.node.remove(node)
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = renamed.get(name, name)
    _drop_unread(graph)
    return changed


def _dequantized(node: onnx.NodeProto, index: GraphIndex) -> onnx.TensorProto:
    integers, scale = (to_array(index.tensors[name]) for name in node.input[:2])
    if scale.ndim:
        axis: Any = attribute(node, "axis", 1)
        scale = np.moveaxis(scale.reshape(-1, *[1] * (integers.ndim - 1)), 0, axis)
    values = (integers.astype(np.float32) * scale.astype(np.float32)).astype(scale.dtype)
    return numpy_helper.from_array(values, node.output[0])


def _drop_unread(graph: onnx.GraphProto) -> None:
    read = {name for node in graph.node for name in tensors_read(node)}
    read |= {one.name for one in graph.output}
    for tensor in list(graph.initializer):
        if tensor.name not in read:
            graph.initializer.remove(tensor)
