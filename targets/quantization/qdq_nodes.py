"""The Q/DQ nodes of a quantized graph, read back without trusting whoever wrote them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from targets.errors import CompileError
from targets.quantization.attention import AttentionBlock
from targets.quantization.graph import GraphIndex, to_array
from targets.quantization.layers import EncoderLayers, LinearLayer

Q, DQ = "QuantizeLinear", "DequantizeLinear"
_TURNS = ("Transpose", "Identity")
_SMALL_BYTES = 1024


class QdqNodes:
    """A quantized graph beside what the float graph says of its layers.

    Args:
        model: the quantized graph, in topological order.
        layers: from `read_layers` of the float graph.
        expected: paths of the layers that must be int8.
        symmetric: no zero points, no unsigned integers.
        attention: whose products must be int8.

    Raises:
        CompileError: an expected path is no layer, or a node has no name of its own.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        layers: EncoderLayers,
        expected: Sequence[str],
        *,
        symmetric: bool,
        attention: Sequence[AttentionBlock] = (),
    ) -> None:
        self.model = model
        self.attention = tuple(attention)
        self.products = {name for one in attention for name in (one.scores, one.mix)}
        self.symmetric = symmetric
        self.index = GraphIndex(model.graph)
        self.layers = layers
        self.by_node = {layer.node: layer for layer in layers.linears}
        self.expected = {one.node for one in layers.linears if one.path in set(expected)}
        unknown = set(expected) - {layer.path for layer in layers.linears}
        if unknown:
            raise CompileError(
                f"{sorted(unknown)[0]!r} is expected to be int8 and is no linear layer",
                hint="take the paths from read_layers of the float graph",
            )

    def all(self) -> Iterator[onnx.NodeProto]:
        """Yield all Q and DQ nodes in execution order."""
        yield from (node for node in self.model.graph.node if node.op_type in (Q, DQ))

    def quantizer(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        """Return the QuantizeLinear in front of a DequantizeLinear; None if there is none."""
        maker = self.index.producers.get(node.input[0])
        return maker if maker is not None and maker.op_type == Q else None

    def sources(self, quantizer: onnx.NodeProto) -> tuple[str, ...]:
        """Return what a QuantizeLinear reads, and what that is without a smoothing product."""
        name = quantizer.input[0]
        maker = self.index.producers.get(name)
        smoothed = (
            maker is not None and maker.op_type == "Mul" and maker.input[1] in self.index.tensors
        )
        return (name, maker.input[0]) if maker is not None and smoothed else (name,)

    def is_weight(self, node: onnx.NodeProto) -> bool:
        """Say whether a DequantizeLinear reads something that is there before any text is."""
        return node.op_type == DQ and self.index.is_constant(node.input[0])

    def dequantizer(self, name: str) -> onnx.NodeProto | None:
        """Return the DequantizeLinear that a tensor comes from, turned or not."""
        maker = self.index.producers.get(name)
        while maker is not None and maker.op_type in _TURNS:
            maker = self.index.producers.get(maker.input[0])
        return maker if maker is not None and maker.op_type == DQ else None

    def readers(self, name: str) -> list[tuple[onnx.NodeProto, int]]:
        """Return who reads a tensor, turned or not, and as which input."""
        found: list[tuple[onnx.NodeProto, int]] = []
        for node in self.index.readers.get(name, []):
            if node.op_type in _TURNS:
                found += self.readers(node.output[0])
            else:
                found += [(node, place) for place, one in enumerate(node.input) if one == name]
        return found

    def weight_reader(self, node: onnx.NodeProto) -> LinearLayer | None:
        """Return the first linear layer that reads a DequantizeLinear as its weight."""
        for reader, place in self.readers(node.output[0]):
            if place == 1 and reader.name in self.by_node:
                return self.by_node[reader.name]
        return None

    def values(self, node: onnx.NodeProto, place: int) -> NDArray[np.generic] | None:
        """Return the stored values of an input; None if it is missing or not stored."""
        name = node.input[place] if len(node.input) > place else ""
        tensor = self.index.tensors.get(name)
        return None if tensor is None else to_array(tensor)


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """Infer the element type of every tensor, ignoring what the file claims.

    Large stored tensors are stood in for by inputs: a model above 2 GiB cannot be inferred.
    """
    graph = model.graph
    stub = onnx.ModelProto(ir_version=model.ir_version)
    stub.opset_import.extend(model.opset_import)
    stub.graph.node.extend(graph.node)
    stub.graph.input.extend(graph.input)
    stub.graph.output.extend(graph.output)
    for tensor in graph.initializer:
        if tensor.ByteSize() <= _SMALL_BYTES:
            stub.graph.initializer.append(tensor)
        else:
            value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            stub.graph.input.append(value)
    inferred = onnx.shape_inference.infer_shapes(stub).graph
    known = {
        value.name: int(value.type.tensor_type.elem_type)
        for value in (*inferred.value_info, *inferred.input, *inferred.output)
    }
    return known | {tensor.name: int(tensor.data_type) for tensor in graph.initializer}
