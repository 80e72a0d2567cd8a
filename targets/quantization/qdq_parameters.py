"""Rules about scales, zero points and stored integers of single Q/DQ nodes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from targets.quantization.graph import attribute
from targets.quantization.integers import UNSIGNED_SHIFT
from targets.quantization.qdq_nodes import DQ, Q, QdqNodes, element_types

_SCALE, _ZERO_POINT = 1, 2
_DEFAULT_AXIS = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A node that breaks a rule, and how."""

    node: str
    rule: str
    why: str


def parameter_findings(nodes: QdqNodes) -> Iterator[Finding]:
    """Yield what is wrong with each Q and DQ node, in execution order."""
    types = element_types(nodes.model)
    for node in nodes.all():
        yield from _scale(nodes, node)
        yield from _scale_type(nodes, node, types)
        yield from _zero_point(nodes, node)
        if nodes.is_weight(node):
            yield from _stored(nodes, node)
            yield from _per_channel(nodes, node)
        else:
            yield from _per_tensor(nodes, node)
            yield from _halves(nodes, node)


def _scale(nodes: QdqNodes, node: onnx.NodeProto) -> Iterator[Finding]:
    scale = nodes.values(node, _SCALE)
    if scale is None:
        why = "its scale is not stored"
    elif scale.dtype not in (np.float32, np.float16):
        why = f"its scale is {scale.dtype.name}"
    elif not np.all(np.isfinite(scale) & (scale > 0)):  # type: ignore[operator]
        why = f"its scale lies between {scale.min()} and {scale.max()}"
    else:
        return
    yield Finding(node=node.name, rule="scales are stored, positive and finite", why=why)


def _scale_type(nodes: QdqNodes, node: onnx.NodeProto, types: dict[str, int]) -> Iterator[Finding]:
    """Compare a scale with the float tensor: what is quantized, or what the weight meets."""
    tensor = _float_tensor(nodes, node)
    if tensor is None:
        return
    scale, found = types.get(node.input[_SCALE]), types.get(tensor)
    if scale != found:
        yield Finding(
            node=node.name,
            rule="the scale has the float type of the tensor",
            why=f"{_type_name(scale)} beside {tensor!r} in {_type_name(found)}",
        )


def _float_tensor(nodes: QdqNodes, node: onnx.NodeProto) -> str | None:
    if node.op_type == Q:
        return str(node.input[0])
    if nodes.is_weight(node):
        layer = nodes.weight_reader(node)
        return None if layer is None else layer.activation
    quantizer = nodes.quantizer(node)
    return None if quantizer is None else str(quantizer.input[0])


def _type_name(elem_type: int | None) -> str:
    if not elem_type:
        return "an unknown type"
    return str(helper.tensor_dtype_to_np_dtype(elem_type).name)


def _zero_point(nodes: QdqNodes, node: onnx.NodeProto) -> Iterator[Finding]:
    zero_point = nodes.values(node, _ZERO_POINT)
    if zero_point is None or zero_point.dtype not in (np.int8, np.uint8):
        why = "it is missing" if zero_point is None else f"it is {zero_point.dtype.name}"
        yield Finding(node=node.name, rule="the zero point is a stored int8 or uint8", why=why)
        return
    if nodes.symmetric and zero_point.dtype == np.uint8:
        yield Finding(
            node=node.name,
            rule="integers are signed where the scheme is symmetric",
            why="its zero point is uint8",
        )
    middle = UNSIGNED_SHIFT if zero_point.dtype == np.uint8 else 0
    if (nodes.symmetric or nodes.is_weight(node)) and np.any(zero_point != middle):
        yield Finding(
            node=node.name,
            rule="the zero point is that of a symmetric tensor",
            why=f"it is {zero_point.ravel()[0]} and should be {middle}",
        )


def _stored(nodes: QdqNodes, node: onnx.NodeProto) -> Iterator[Finding]:
    stored = nodes.index.tensors.get(node.input[0])
    kinds = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    if stored is None:
        why = f"{node.input[0]!r} is computed when the model is loaded"
    elif stored.data_type not in kinds:
        why = f"{node.input[0]!r} is {_type_name(stored.data_type)}"
    elif nodes.symmetric and stored.data_type != onnx.TensorProto.INT8:
        why = f"{node.input[0]!r} is unsigned in a symmetric scheme"
    elif len(stored.dims) != 2:
        why = f"{node.input[0]!r} has {len(stored.dims)} axes"
    else:
        return
    yield Finding(node=node.name, rule="the weight is a stored int8 matrix", why=why)


def _per_channel(nodes: QdqNodes, node: onnx.NodeProto) -> Iterator[Finding]:
    """Compare the axis with the float graph's: a square matrix fits along either."""
    layer, scale = nodes.weight_reader(node), nodes.values(node, _SCALE)
    zero_point, stored = nodes.values(node, _ZERO_POINT), nodes.index.tensors.get(node.input[0])
    if layer is None or scale is None or zero_point is None or stored is None:
        return
    axis = int(attribute(node, "axis", _DEFAULT_AXIS))  # type: ignore[call-overload]
    wanted = (stored.dims[layer.output_axis],)
    if axis % len(stored.dims) != layer.output_axis:
        why = f"its axis is {axis}, the output channels of {layer.path} lie on {layer.output_axis}"
    elif scale.shape != wanted or zero_point.shape != wanted:
        why = f"scale {scale.shape} and zero point {zero_point.shape} are not {wanted}"
    elif attribute(node, "block_size", 0):
        why = "it has blocks"
    else:
        return
    yield Finding(node=node.name, rule="weights have one scale for each output channel", why=why)


def _per_tensor(nodes: QdqNodes, node: onnx.NodeProto) -> Iterator[Finding]:
    for place in (_SCALE, _ZERO_POINT):
        values = nodes.values(node, place)
        if values is not None and values.ndim:
            yield Finding(
                node=node.name,
                rule="activations have one scale for the whole tensor",
                why=f"{node.input[place]!r} has shape {values.shape}",
            )


def _halves(nodes: QdqNodes, node: onnx.NodeProto) -> Iterator[Finding]:
    quantizer = nodes.quantizer(node) if node.op_type == DQ else None
    if quantizer is None:
        return
    for place in (_SCALE, _ZERO_POINT):
        one, other = nodes.values(quantizer, place), nodes.values(node, place)
        if one is not None and other is not None and one.tobytes() != other.tobytes():
            yield Finding(
                node=node.name,
                rule="both halves of a pair have the same scale and zero point",
                why=f"{quantizer.name!r} has {one}, it has {other}",
            )
