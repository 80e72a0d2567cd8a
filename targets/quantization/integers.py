"""Scales, zero points and integers: how eight bits stand for floats.

real = scale * (integer - zero_point), as ONNX defines QuantizeLinear and DequantizeLinear.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from targets.contract import IntegerScheme
from targets.errors import CompileError
from targets.quantization.calibrators import Range

WEIGHT_LIMIT = 127
"""-128 is left out: with it, weights would not be symmetric."""
REDUCED_WEIGHT_LIMIT = 63
"""2 * 255 * 63 fits into 16 bits, where AVX2 adds pairs of U8S8 products with saturation."""
_LARGEST_UNSATURATED = 64
"""2 * 255 * 64 still fits; the most that integers from elsewhere may have."""
UNSIGNED_SHIFT = 128
"""Zero point of weights stored unsigned: the same values as signed ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorParameters:
    """Scale and zero point of one whole tensor.

    Args:
        scale: shape [], the tensor's float type, positive, finite.
        zero_point: shape [], uint8 or int8.
    """

    scale: NDArray[np.floating]
    zero_point: NDArray[np.integer]

    @property
    def key(self) -> tuple[float, int, str]:
        """What tells two of them apart."""
        return float(self.scale), int(self.zero_point), self.zero_point.dtype.name


def activation_parameters(
    chosen: Range, integers: IntegerScheme, *, symmetric: bool, dtype: np.dtype[np.floating]
) -> TensorParameters:
    """Turn a range into scale and zero point; zero is exactly an integer.

    Symmetric: scale = absmax / 127, integers -128 … 127, zero point 0. Otherwise
    scale = (high - low) / 255 and zero_point = round(-low / scale), less 128 where signed
    (ONNX, DynamicQuantizeLinear). A range so narrow that the scale would not be a number that
    every runtime divides by gets the smallest such scale.

    Args:
        chosen: what is represented.
        integers: first letter: whether activations are unsigned.
        symmetric: no zero point; signed only.
        dtype: float type of the tensor, which the scale has as well.

    Raises:
        CompileError: symmetric and unsigned, or a range beyond the float type's.
    """
    signed = integers.startswith("S")
    if symmetric and not signed:
        raise CompileError(
            f"{integers} has unsigned activations and cannot be symmetric",
            why="without a zero point, an unsigned integer has no negative values",
            hint="take S8S8, or leave symmetric out",
        )
    steps = 127.0 if symmetric else 255.0
    width = max(-chosen.low, chosen.high) if symmetric else chosen.high - chosen.low
    if width / steps > float(np.finfo(dtype).max):
        raise CompileError(
            f"{chosen.low} to {chosen.high} has no scale in {dtype.name}",
            hint="calibrate again; activations this large overflow anyway",
        )
    scale = np.maximum(dtype.type(width / steps), _smallest_scale(dtype))
    zero_point = 0 if symmetric else int(np.clip(np.rint(-chosen.low / float(scale)), 0, 255))
    if signed and not symmetric:
        zero_point -= UNSIGNED_SHIFT
    return TensorParameters(
        scale=np.array(scale, dtype),
        zero_point=np.array(zero_point, np.int8 if signed else np.uint8),
    )


def weight_limit(reduce_range: bool) -> int:
    """Return the largest absolute integer that weights are rounded to."""
    return REDUCED_WEIGHT_LIMIT if reduce_range else WEIGHT_LIMIT


def largest_weight_integer(reduce_range: bool) -> int:
    """Return the largest absolute integer that already rounded weights may have."""
    return _LARGEST_UNSATURATED if reduce_range else UNSIGNED_SHIFT


def weight_scale(
    weight: NDArray[np.floating], axis: int, *, reduce_range: bool = False
) -> NDArray[np.floating]:
    """Return the symmetric scale of each output channel: absmax / 127, or 63 in seven bits.

    A channel of zeros, for which any scale is right, gets 1.

    Args:
        weight: shape [in, out] or [out, in], float32 or float16.
        axis: that of the output channels.
        reduce_range: whether seven bits must do.

    Returns:
        Shape [out], the weight's type.
    """
    across = 1 - axis
    absmax = np.maximum(weight.max(axis=across), -weight.min(axis=across)).astype(np.float64)
    wanted = absmax / weight_limit(reduce_range)
    wanted[wanted < _smallest_scale(weight.dtype)] = 1.0
    scale: NDArray[np.floating] = wanted.astype(weight.dtype)
    return scale


def round_weight(
    weight: NDArray[np.floating],
    scale: NDArray[np.floating],
    axis: int,
    *,
    reduce_range: bool = False,
) -> NDArray[np.int8]:
    """Round a weight to the nearest steps, ties to even as ONNX's QuantizeLinear.

    Args:
        weight: shape [in, out] or [out, in].
        scale: step of each output channel, shape [out].
        axis: that of the output channels.
        reduce_range: whether seven bits must do.

    Returns:
        Integers of the weight's shape, int8.
    """
    limit = weight_limit(reduce_range)
    # float32 as in the runtimes' own kernels, and in place: embedding tables have gigabytes.
    steps = weight.astype(np.float32)
    steps /= np.expand_dims(scale.astype(np.float32), 1 - axis)
    np.rint(steps, out=steps)
    np.clip(steps, -limit, limit, out=steps)
    return steps.astype(np.int8)


def _smallest_scale(dtype: np.dtype[np.floating]) -> np.floating:
    """Return the least scale that survives: float32 kernels may flush subnormals to zero.

    float16 has too few normal numbers to give them up, and is widened before it is divided by.
    """
    info = np.finfo(dtype)
    least: np.floating = info.smallest_normal if dtype == np.float32 else info.smallest_subnormal
    return least
