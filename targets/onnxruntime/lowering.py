"""Static int8: a checked Q/DQ graph turned into the integer kernels that it stands for.

`QuantizeLinear` stays; the pair of `DequantizeLinear` and the product behind them become one
`MatMulIntegerToFloat` with the layer's bias. What is computed is the same: products in integers,
scaled once, bias added in float.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from targets.errors import CompileError
from targets.onnxruntime.products import ProductWriter, widths_of
from targets.quantization.graph import attribute, to_array
from targets.quantization.layers import LinearLayer

_DQ = "DequantizeLinear"


def lower_qdq(
    quantized: onnx.ModelProto, floating: onnx.ModelProto, layers: Sequence[LinearLayer]
) -> onnx.ModelProto:
    """Write integer products into a copy of a Q/DQ graph.

    Args:
        quantized: from `insert_qdq`, passed by `validate_qdq`.
        floating: the graph that it was made from.
        layers: those that are int8 in it.

    Raises:
        CompileError: a `DequantizeLinear` is left that no product took in.
    """
    writer = ProductWriter(quantized, widths_of(floating, layers))
    for layer in layers:
        _lower(writer, layer)
    model = writer.finish()
    for node in model.graph.node:
        if node.op_type == _DQ:
            raise CompileError(
                f"{node.name!r} is left behind in float",
                why="no int8 layer reads it",
                hint="report the graph; another recipe may still do",
            )
    return model


def _lower(writer: ProductWriter, layer: LinearLayer) -> None:
    index = writer.editor.index
    node = writer.editor.node(layer.node)
    quantized, step, zero_point = index.producers[node.input[0]].input
    turned = bool(attribute(node, "transB", 0))
    weight = index.producers[node.input[1]]
    if weight.op_type == "Transpose":
        turned = not turned
        weight = index.producers[weight.input[0]]
    integers, steps, zero_points = weight.input
    if turned:
        values = np.ascontiguousarray(to_array(index.tensors[integers]).T)
        integers = writer.editor.store(f"{integers}_turned", values)
    if not to_array(index.tensors[zero_points]).any():
        zero_points = ""
    writer.replace(
        layer,
        "MatMulIntegerToFloat",
        (quantized, integers, step, steps, zero_point, zero_points),
        suffix="_quant",
    )
