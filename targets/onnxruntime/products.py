"""Products of a float graph replaced by ONNX Runtime's own kernels, bias included.

ONNX Runtime (1.32) finds these kernels itself in a graph with Q/DQ or dynamic quantization, but
not always: a Q/DQ pair that several layers share leaves S8S8 layers in float, a Gemm with a float
bias stays float everywhere, and behind a Q/DQ product the bias stays an addition of its own.
Written out, every layer runs as planned, at every optimization level, on every architecture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
from onnx import helper

from targets.quantization.editing import GraphEditor
from targets.quantization.graph import GraphIndex, to_array
from targets.quantization.layers import LinearLayer

CONTRIB_DOMAIN = "com.microsoft"
"""Operators that come with every build of ONNX Runtime (docs/ContribOperators.md there)."""


class ProductWriter:
    """Replaces linear layers of one graph, each by a single node.

    Args:
        model: weights in memory; it is not changed.
        widths: node of a layer → number of its output channels.
    """

    def __init__(self, model: onnx.ModelProto, widths: Mapping[str, int]) -> None:
        self.editor = GraphEditor(model)
        self._widths = widths
        self._names: dict[str, str] = {}

    def place(self, layer: LinearLayer) -> onnx.NodeProto:
        """Return the node that becomes the product: that of the bias, where it is one."""
        node = self.editor.node(layer.node)
        addition = self._addition(node)
        return node if addition is None else addition

    def replace(
        self,
        layer: LinearLayer,
        op_type: str,
        inputs: Sequence[str],
        *,
        suffix: str,
        **attributes: int,
    ) -> None:
        """Let one node compute a layer, its bias too.

        Args:
            layer: of the graph as it was handed over.
            op_type: in `CONTRIB_DOMAIN`; its last input is the bias.
            inputs: all but the bias; "" stands for one that is left out.
            suffix: what the node's name gets behind the layer's.
            attributes: of the node.
        """
        product = self.editor.node(layer.node)
        node, bias = self.place(layer), self._bias(layer)
        was_read = [*product.input, product.output[0]]
        node.op_type, node.domain = op_type, CONTRIB_DOMAIN
        _set_inputs(node, [*inputs, bias])
        del node.attribute[:]
        node.attribute.extend(helper.make_attribute(*pair) for pair in sorted(attributes.items()))
        self._names[node.name] = self.editor.unique(f"{layer.node}{suffix}")
        if node is not product:
            self.editor.drop_unread(product.output[0])
        for name in was_read[:-1]:
            self.editor.drop_unread(name)

    def finish(self) -> onnx.ModelProto:
        """Return the changed model; the writer must not be used after that."""
        model = self.editor.finish()
        for node in model.graph.node:
            node.name = self._names.get(node.name, node.name)
        if all(one.domain != CONTRIB_DOMAIN for one in model.opset_import):
            model.opset_import.append(helper.make_opsetid(CONTRIB_DOMAIN, 1))
        return model

    def _bias(self, layer: LinearLayer) -> str:
        """Return the stored bias, shape [out]; "" where there is none."""
        node = self.editor.node(layer.node)
        addition = self._addition(node)
        if addition is not None:
            name = next(one for one in addition.input if one != node.output[0])
        elif node.op_type == "Gemm" and len(node.input) > 2:
            name = node.input[2]
        else:
            return ""
        tensor = self.editor.index.tensors[name]
        if len(tensor.dims) == 1:
            return str(name)
        return self.editor.store(f"{name}_flat", to_array(tensor).reshape(-1))

    def _addition(self, product: onnx.NodeProto) -> onnx.NodeProto | None:
        """Return the Add of a stored bias that alone reads a MatMul."""
        index = self.editor.index
        reader = index.only_reader(product.output[0])
        if product.op_type != "MatMul" or reader is None or reader.op_type != "Add":
            return None
        others = [name for name in reader.input if name != product.output[0]]
        stored = index.tensors.get(others[0]) if len(others) == 1 else None
        width = self._widths[product.name]
        return reader if stored is not None and _is_vector(stored, width) else None


def widths_of(model: onnx.ModelProto, layers: Sequence[LinearLayer]) -> dict[str, int]:
    """Return the number of output channels of each layer of a float graph, by node."""
    tensors = GraphIndex(model.graph).tensors
    return {one.node: int(tensors[one.weight].dims[one.output_axis]) for one in layers}


def _is_vector(tensor: onnx.TensorProto, width: int) -> bool:
    """Say whether a tensor is one value for each output channel, with any leading ones."""
    return list(tensor.dims) == [1] * (len(tensor.dims) - 1) + [width]


def _set_inputs(node: onnx.NodeProto, names: Sequence[str]) -> None:
    """Set inputs without the empty ones at the end."""
    del node.input[:]
    last = max(place for place, name in enumerate(names) if name)
    node.input.extend(names[: last + 1])
