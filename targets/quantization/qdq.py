"""Q/DQ nodes at the linear layers of a float encoder graph, and nowhere else.

Each planned layer reads its activation through QuantizeLinear and DequantizeLinear, one pair for
all readers with the same range, and its weight through a DequantizeLinear over a stored integer
matrix with one scale for each output channel. Products, biases, residuals, LayerNorm and
everything behind `last_hidden_state` stay in float, and attention too, unless all four operands of
its products are planned. Measured with TensorRT for RTX 1.7: so all products run in int8 and
attention is fused; Q/DQ behind products or on softmax alone breaks the fusion, per-tensor weights
the merging of query, key and value.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from targets.errors import CompileError
from targets.quantization.attention import AttentionPlan
from targets.quantization.editing import GraphEditor
from targets.quantization.embeddings_qdq import store_embeddings
from targets.quantization.folding import fold_divisors
from targets.quantization.graph import GraphIndex, attribute, opset_version, to_floats
from targets.quantization.integers import (
    UNSIGNED_SHIFT,
    TensorParameters,
    activation_parameters,
)
from targets.quantization.layers import LinearLayer, read_layers
from targets.quantization.plan import LayerPlan, QdqPlan, require_shape, rounded_weight

MIN_OPSET = 19
"""The first whose Q/DQ takes float16 scales; per-channel needs 13."""


def insert_qdq(model: onnx.ModelProto, plan: QdqPlan) -> onnx.ModelProto:
    """Write a plan into a copy of a graph.

    Args:
        model: a float graph of opset 19 or later, its weights in memory; it is not changed.
        plan: made for this graph.

    Raises:
        CompileError: the opset is older, the graph has Q/DQ nodes already, or the plan does not
            fit the graph or itself.
    """
    _require_float_graph(model)
    known = {layer.node: layer for layer in read_layers(model).linears}
    _require_fitting(plan, known)
    _require_attention(plan, GraphIndex(model.graph))
    model, plan, _ = fold_divisors(model, plan)
    writer = _Writer(model)
    for one in sorted(plan.layers, key=lambda one: writer.editor.position(one.layer.node)):
        writer.write(one)
    for block in plan.attention:
        writer.write_attention(block, _float_type(model))
    if plan.embeddings != "float32":
        store_embeddings(writer.editor, read_layers(model).embeddings, plan.embeddings)
    return writer.editor.finish()


def _require_float_graph(model: onnx.ModelProto) -> None:
    version = opset_version(model)
    if version < MIN_OPSET:
        raise CompileError(
            f"the graph has opset {version}, Q/DQ needs {MIN_OPSET} or later",
            why="older DequantizeLinear has neither float16 scales nor one for each channel",
            hint="export the encoder again with a later opset",
        )
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            raise CompileError(
                f"the graph is quantized already: {node.name!r} is a {node.op_type}",
                hint="start from the float graph",
            )


def _require_fitting(plan: QdqPlan, known: dict[str, LinearLayer]) -> None:
    seen: set[str] = set()
    for one in plan.layers:
        node = one.layer.node
        if known.get(node) != one.layer:
            raise CompileError(
                f"the plan's layer {one.layer.path!r} is not in the graph",
                why=f"the graph has {'another' if node in known else 'no'} linear layer {node!r}",
                hint="make the plan from read_layers of the graph that is quantized",
            )
        if node in seen:
            raise CompileError(f"the plan has the layer {one.layer.path!r} twice")
        seen.add(node)


def _require_attention(plan: QdqPlan, index: GraphIndex) -> None:
    for block in (one.block for one in plan.attention):
        for name, place, tensor in block.operands:
            node = index.nodes.get(name)
            if node is None or list(node.input)[place : place + 1] != [tensor]:
                raise CompileError(
                    f"the plan's attention {block.path!r} is not in the graph",
                    why=f"no node {name!r} reads {tensor!r} as input {place}",
                    hint="make the plan from read_attention of the graph that is quantized",
                )


def _float_type(model: onnx.ModelProto) -> np.dtype[np.floating]:
    """Return the type that the transformer computes in: that of its first linear weight."""
    tensors = GraphIndex(model.graph).tensors
    return to_floats(tensors[read_layers(model).linears[0].weight]).dtype


class _Writer:
    """Writes one layer after the other; what several of them share is written once."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.editor = GraphEditor(model)
        self._activations: dict[tuple[str, tuple[float, int, str], bytes], str] = {}
        self._weights: dict[tuple[str, bytes, bytes, bool], str] = {}

    def write(self, plan: LayerPlan) -> None:
        node = self.editor.node(plan.layer.node)
        values = to_floats(self.editor.index.tensors[plan.layer.weight])
        parameters = activation_parameters(
            plan.activation, plan.integers, symmetric=plan.symmetric, dtype=values.dtype
        )
        node.input[0] = self._activation(plan, parameters)
        operand = node.input[1]
        node.input[1] = self._weight(plan, values)
        self.editor.drop_unread(operand)
        if plan.bias is not None:
            self._bias(plan, plan.bias.astype(values.dtype))

    def write_attention(self, plan: AttentionPlan, dtype: np.dtype[np.floating]) -> None:
        """Put a pair in front of each operand of both products."""
        block = plan.block
        for (name, place, tensor), chosen in zip(block.operands, plan.ranges, strict=True):
            parameters = activation_parameters(chosen, "S8S8", symmetric=True, dtype=dtype)
            self.editor.node(name).input[place] = self._pair(block.path, name, tensor, parameters)

    # -------------------------------------------------------------------- activations

    def _activation(self, plan: LayerPlan, parameters: TensorParameters) -> str:
        """Return the tensor behind the pair for an activation; the first reader names it."""
        divisor = plan.divisor
        key = (
            plan.layer.activation,
            parameters.key,
            b"" if divisor is None else divisor.tobytes(),
        )
        if key not in self._activations:
            source = plan.layer.activation if divisor is None else self._smoothed(plan, divisor)
            place = plan.layer
            self._activations[key] = self._pair(place.path, place.node, source, parameters)
        return self._activations[key]

    def _smoothed(self, plan: LayerPlan, divisor: NDArray[np.float32]) -> str:
        """Put a product with 1 / divisor behind an activation, where it could not be folded."""
        editor, layer = self.editor, plan.layer
        fan_in = editor.index.tensors[layer.weight].dims[1 - layer.output_axis]
        require_shape(plan, "divisor", divisor, (fan_in,))
        if not np.all(np.isfinite(divisor) & (divisor > 0)):
            raise CompileError(f"{layer.path}: divisors must be positive and finite")
        elem_type = editor.index.tensors[layer.weight].data_type
        dtype = helper.tensor_dtype_to_np_dtype(elem_type)
        factor = editor.store(f"{layer.activation}_factor", (1.0 / divisor).astype(dtype))
        result = editor.unique(f"{layer.activation}_smoothed")
        editor.insert("Mul", layer.path, (layer.activation, factor), result, before=layer.node)
        editor.describe(result, layer.activation, elem_type)
        return result

    def _pair(self, path: str, node: str, name: str, parameters: TensorParameters) -> str:
        """Insert a pair for a tensor in front of a node; return the tensor behind it."""
        editor = self.editor
        scale = editor.store(f"{name}_scale", parameters.scale)
        zero_point = editor.store(f"{name}_zero_point", parameters.zero_point)
        quantized = editor.unique(f"{name}_quantized")
        result = editor.unique(f"{name}_dequantized")
        editor.insert("QuantizeLinear", path, (name, scale, zero_point), quantized, before=node)
        editor.insert("DequantizeLinear", path, (quantized, scale, zero_point), result, before=node)
        editor.describe(quantized, name, _elem_type(parameters.zero_point))
        editor.describe(result, name, _elem_type(parameters.scale))
        return result

    # ------------------------------------------------------------------------ weights

    def _weight(self, plan: LayerPlan, values: NDArray[np.floating]) -> str:
        """Return the tensor behind a weight's integers, turned as the float one was."""
        layer = plan.layer
        integers, scale = rounded_weight(plan, values)
        unsigned = plan.integers.endswith("U8")
        key = (layer.weight, integers.tobytes(), scale.tobytes(), unsigned)
        if key not in self._weights:
            self._weights[key] = self._stored_weight(layer, integers, scale, unsigned)
        turned_by_gemm = bool(attribute(self.editor.node(layer.node), "transB", 0))
        turned = layer.transposed != turned_by_gemm
        return self._turn(layer, self._weights[key]) if turned else self._weights[key]

    def _stored_weight(
        self,
        layer: LinearLayer,
        integers: NDArray[np.int8],
        scale: NDArray[np.generic],
        unsigned: bool,
    ) -> str:
        editor, name = self.editor, layer.weight
        shift = UNSIGNED_SHIFT if unsigned else 0
        kind = np.uint8 if unsigned else np.int8
        stored = (integers.astype(np.int16) + shift).astype(kind)
        inputs = (
            editor.store(f"{name}_quantized", stored),
            editor.store(f"{name}_scale", scale),
            editor.store(f"{name}_zero_point", np.full(scale.shape, shift, kind)),
        )
        result = editor.unique(f"{name}_dequantized")
        editor.insert(
            "DequantizeLinear",
            layer.path,
            inputs,
            result,
            before=layer.node,
            axis=layer.output_axis,
        )
        return result

    def _turn(self, layer: LinearLayer, name: str) -> str:
        result = self.editor.unique(f"{name}_transposed")
        self.editor.insert("Transpose", layer.path, (name,), result, before=layer.node, perm=(1, 0))
        return result

    # ------------------------------------------------------------------------- biases

    def _bias(self, plan: LayerPlan, values: NDArray[np.generic]) -> None:
        layer = plan.layer
        require_shape(plan, "bias", values, (_num_outputs(self.editor, layer),))
        node = self.editor.node(layer.node)
        if layer.bias is not None:
            self._replace_bias(layer, layer.bias, values)
        elif node.op_type == "Gemm":
            inputs = [*node.input[:2], self.editor.store(f"{layer.path}.bias", values)]
            del node.input[:]
            node.input.extend(inputs)
        else:
            self._add_bias(layer, node, values)

    def _replace_bias(self, layer: LinearLayer, bias: str, values: NDArray[np.generic]) -> None:
        editor = self.editor
        values = values.reshape(tuple(editor.index.tensors[bias].dims))
        # With Gemm the bias is an input of the node itself, with MatMul of the Add behind it.
        reader = editor.index.producers[layer.output]
        new = editor.store(f"{bias}_replaced", values)
        for place, name in enumerate(reader.input):
            if name == bias:
                reader.input[place] = new
        editor.drop_unread(bias)

    def _add_bias(
        self, layer: LinearLayer, node: onnx.NodeProto, values: NDArray[np.generic]
    ) -> None:
        """Put an Add behind the product; it takes over the name that the others read."""
        editor, result = self.editor, node.output[0]
        bias = editor.store(f"{layer.path}.bias", values)
        product = editor.unique(f"{result}_product")
        node.output[0] = product
        editor.describe(product, result, _elem_type(values))
        editor.insert("Add", layer.path, (product, bias), result, after=layer.node)


def _num_outputs(editor: GraphEditor, layer: LinearLayer) -> int:
    return int(editor.index.tensors[layer.weight].dims[layer.output_axis])


def _elem_type(values: NDArray[np.generic]) -> int:
    return int(helper.np_dtype_to_tensor_dtype(values.dtype))


__all__ = ["MIN_OPSET", "LayerPlan", "QdqPlan", "insert_qdq"]
