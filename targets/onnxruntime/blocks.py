"""Weights in blocks of four or eight bits, multiplied by ONNX Runtime's `MatMulNBits`.

Each block of neighbouring input channels of one output channel has a scale of its own (operator
specification: docs/ContribOperators.md, com.microsoft.MatMulNBits). With accuracy level 4 the
kernel rounds activations to int8, block by block and row by row, and multiplies integers where the
CPU can; an embedding does not depend on its batch mates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from targets.onnxruntime.products import ProductWriter, widths_of
from targets.quantization.graph import to_floats
from targets.quantization.layers import LinearLayer

Bits = Literal[4, 8]

BLOCK_SIZES: Mapping[Bits, int] = {4: 32, 8: 64}
"""Bits → input channels that share a scale; figures are in `docs/onnxruntime.md`."""
ACCURACY_LEVEL = 4
"""Activations may be rounded to int8."""
_SMALLEST_STEP = float(np.finfo(np.float32).smallest_normal)
_SHRINKINGS = np.linspace(1.0, 0.75, 11)
"""Parts of a block's range that are tried: clipping its largest value may lose less than it
gains in all others."""


def quantize_blocks(
    model: onnx.ModelProto, layers: Sequence[LinearLayer], bits: Bits
) -> onnx.ModelProto:
    """Write block-quantized products into a copy of a float graph.

    Args:
        model: weights in memory.
        layers: those whose weights are stored in blocks.
        bits: of each weight.
    """
    writer = ProductWriter(model, widths_of(model, layers))
    editor = writer.editor
    for layer in layers:
        values = to_floats(editor.index.tensors[layer.weight]).astype(np.float32)
        rows = values if layer.output_axis == 0 else values.T
        integers, steps = round_blocks(rows, bits)
        weight = editor.store(f"{layer.weight}_Q{bits}", _packed(integers, bits))
        scales = editor.store(f"{layer.weight}_scales", steps)
        writer.replace(
            layer,
            "MatMulNBits",
            (layer.activation, weight, scales, "", ""),
            suffix=f"_Q{bits}",
            K=rows.shape[1],
            N=rows.shape[0],
            bits=bits,
            block_size=BLOCK_SIZES[bits],
            accuracy_level=ACCURACY_LEVEL,
        )
    return writer.finish()


def round_blocks(
    weight: NDArray[np.float32], bits: Bits
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Round a weight in blocks, symmetrically; integers are stored with an offset.

    The value of largest magnitude is stood for by the most negative integer, which has one step
    more than the positive side, so the scale may be negative. Of a few shrunken ranges, each
    block takes the one with the least squared error.

    Args:
        weight: shape [out, in].
        bits: of each integer.

    Returns:
        Integers plus 2^(bits - 1), shape [out, blocks, channels]; scales, shape [out, blocks].
        The last block is filled up with zeros.
    """
    lowest = -(2 ** (bits - 1))
    blocks = _in_blocks(weight, BLOCK_SIZES[bits])
    at = np.abs(blocks).argmax(axis=-1)[..., None]
    full = np.take_along_axis(blocks, at, axis=-1)[..., 0] / np.float32(lowest)
    full[np.abs(full) < _SMALLEST_STEP] = 1.0
    best = np.full(full.shape, np.inf, np.float32)
    integers, steps = np.zeros(blocks.shape, np.int16), full
    for part in _SHRINKINGS:
        tried = full * np.float32(part)
        rounded = np.clip(np.rint(blocks / tried[..., None]), lowest, -lowest - 1)
        error = np.square(rounded * tried[..., None] - blocks).sum(axis=-1)
        better = error < best
        best = np.where(better, error, best)
        steps = np.where(better, tried, steps)
        integers = np.where(better[..., None], rounded.astype(np.int16), integers)
    return (integers - lowest).astype(np.uint8), steps


def _in_blocks(weight: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    missing = -weight.shape[1] % size
    filled = np.pad(weight, ((0, 0), (0, missing)))
    return np.ascontiguousarray(filled).reshape(len(weight), -1, size)


def _packed(integers: NDArray[np.uint8], bits: Bits) -> NDArray[np.uint8]:
    """Put two four-bit integers into a byte, the first into its lower half."""
    if bits == 8:
        return integers
    return (integers[..., 0::2] | (integers[..., 1::2] << 4)).astype(np.uint8, copy=False)
