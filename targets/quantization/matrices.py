"""The matrix and the bias of a linear layer, as a graph stores them."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from targets.quantization.graph import FLOAT_TYPES, GraphIndex, attribute

_PLAIN_GEMM = (("transA", 0), ("alpha", 1.0), ("beta", 1.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """A linear layer's matrix: name of the stored tensor, its sizes, how it is stored."""

    name: str
    fan_in: int
    fan_out: int
    transposed: bool


def read_weight(node: onnx.NodeProto, index: GraphIndex) -> Weight | None:
    """Return the matrix of a linear layer; None if the node is none."""
    if node.op_type not in ("MatMul", "Gemm") or index.is_constant(node.input[0]):
        return None
    transposed = False
    if node.op_type == "Gemm":
        if any(attribute(node, name, default) != default for name, default in _PLAIN_GEMM):
            return None
        transposed = bool(attribute(node, "transB", 0))
    name = node.input[1]
    while name not in index.tensors and (above := index.producers.get(name)) is not None:
        if above.op_type == "Transpose" and attribute(above, "perm", [1, 0]) == [1, 0]:
            transposed = not transposed
        elif above.op_type != "Identity":
            return None
        name = above.input[0]
    tensor = index.tensors.get(name)
    if tensor is None or tensor.data_type not in FLOAT_TYPES or len(tensor.dims) != 2:
        return None
    rows, columns = tensor.dims
    fan_in, fan_out = (columns, rows) if transposed else (rows, columns)
    weight = Weight(name=name, fan_in=fan_in, fan_out=fan_out, transposed=transposed)
    return weight if _c_is_bias(node, weight, index) else None


def _c_is_bias(node: onnx.NodeProto, weight: Weight, index: GraphIndex) -> bool:
    return len(node.input) < 3 or not node.input[2] or _is_bias(node.input[2], weight, index)


def _is_bias(name: str, weight: Weight, index: GraphIndex) -> bool:
    """Say whether a stored tensor has one value for each output channel."""
    tensor = index.tensors.get(name)
    if tensor is None or not tensor.dims or tensor.data_type not in FLOAT_TYPES:
        return False
    return tensor.dims[-1] == weight.fan_out and all(size == 1 for size in tensor.dims[:-1])


def read_bias(node: onnx.NodeProto, weight: Weight, index: GraphIndex) -> tuple[str | None, str]:
    """Return the bias, if there is one, and the tensor behind it."""
    product = node.output[0]
    if len(node.input) > 2 and node.input[2]:
        return node.input[2], product
    after = index.only_reader(product)
    if after is not None and after.op_type == "Add":
        other = after.input[1] if after.input[0] == product else after.input[0]
        if _is_bias(other, weight, index):
            return other, after.output[0]
    return None, product
