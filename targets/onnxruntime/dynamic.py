"""Dynamic int8: weights ahead of time, activations by the extremes of each batch at run time.

The operators of ONNX Runtime's `quantize_dynamic`: one `DynamicQuantizeLinear` for each
activation, shared by its readers, and integer products with one weight scale for each output
channel. Only linear layers are int8; products inside attention, pooling and normalization stay in
float. The scale is that of the whole batch, so a text's embedding depends on its batch mates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from targets.onnxruntime.products import ProductWriter, widths_of
from targets.quantization.graph import to_floats
from targets.quantization.integers import round_weight, weight_scale
from targets.quantization.layers import LinearLayer
from targets.quantization.prepare import by_activation


def quantize_dynamically(
    model: onnx.ModelProto, layers: Sequence[LinearLayer], *, reduce_range: bool
) -> onnx.ModelProto:
    """Write dynamic int8 products into a copy of a float graph.

    Args:
        model: weights in memory.
        layers: those that become int8.
        reduce_range: weights keep seven bits, for CPUs that add pairs of products in 16 bits.
    """
    writer = ProductWriter(model, widths_of(model, layers))
    for readers in by_activation(layers):
        activation = _quantized_activation(writer, readers)
        for layer in readers:
            _replace(writer, layer, activation, reduce_range=reduce_range)
    return writer.finish()


def _quantized_activation(
    writer: ProductWriter, readers: Sequence[LinearLayer]
) -> tuple[str, str, str]:
    """Write the quantization of an activation; return integers, scale and zero point."""
    editor, name = writer.editor, readers[0].activation
    integers, step, zero_point = (
        editor.unique(f"{name}_{part}") for part in ("quantized", "scale", "zero_point")
    )
    first = min((writer.place(layer).name for layer in readers), key=editor.position)
    node = editor.insert("DynamicQuantizeLinear", readers[0].path, (name,), integers, before=first)
    node.output.extend([step, zero_point])
    return integers, step, zero_point


def _replace(
    writer: ProductWriter,
    layer: LinearLayer,
    activation: tuple[str, str, str],
    *,
    reduce_range: bool,
) -> None:
    editor, axis = writer.editor, layer.output_axis
    values = to_floats(editor.index.tensors[layer.weight])
    steps = weight_scale(values, axis, reduce_range=reduce_range)
    integers = round_weight(values, steps, axis, reduce_range=reduce_range)
    if axis == 0:
        integers = np.ascontiguousarray(integers.T)
    weight = editor.store(f"{layer.weight}_quantized", integers)
    scales = editor.store(f"{layer.weight}_scale", steps)
    quantized, step, zero_point = activation
    writer.replace(
        layer,
        "MatMulIntegerToFloat",
        (quantized, weight, step, scales, zero_point, ""),
        suffix="_quant",
    )
