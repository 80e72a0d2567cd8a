"""Where 8-bit products saturate 16 bits on x86 CPUs without VNNI, and what they then compute.

VPMADDUBSW multiplies unsigned with signed bytes and adds the products of two neighbours into an
int16 with saturation (Intel SDM, volume 2, PMADDUBSW); VPMADDWD and VPADDD then add up in 32 bits
without loss. VNNI's VPDPBUSD has no 16-bit step. The neighbours are input channels 2i and 2i + 1:
in OpenVINO 2026.4, capped to AVX2 ("jit_gemm") and to AVX512_CORE ("brgemm_avx512"), products are
bit for bit those of `simulate_pairs`. Signed activations fare no better there: the kernels add 128
to them first. Weights in seven bits cannot saturate: 2 * 255 * 63 = 32130.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from targets.errors import CalibrationError
from targets.quantization.integers import UNSIGNED_SHIFT, TensorParameters, activation_parameters
from targets.quantization.plan import LayerPlan, rounded_weight
from targets.quantization.statistics import TensorStatistics

LARGEST_SUM, SMALLEST_SUM = 32767, -32768
_LARGEST_CODE = 255
_GROUP = 4
"""Channels that a 32-bit lane of activations holds."""

Codes = NDArray[np.uint8]
Integers = NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Saturation:
    """How near a linear layer can come to 16 bits.

    Args:
        path: of the layer.
        pairs_at_risk: pairs of products whose sum can leave int16.
        num_pairs: all pairs: output channels times pairs of input channels.
        worst: largest possible sum of a pair as a part of what int16 holds on that side; above 1
            exactly where there are pairs at risk.
    """

    path: str
    pairs_at_risk: int
    num_pairs: int
    worst: float


def layers_at_risk(found: Iterable[Saturation], *, limit: float = 1.0) -> tuple[str, ...]:
    """Return the paths of the layers that can saturate, in the order given.

    Args:
        found: one for each layer.
        limit: largest `worst` that counts as safe. 1 trusts that no text drives a channel beyond
            what the calibration texts did; less leaves a margin.
    """
    return tuple(one.path for one in found if one.worst > limit)


def predict_plan(
    plan: LayerPlan, stored: NDArray[np.floating], statistics: TensorStatistics
) -> Saturation:
    """Predict what a planned layer can do with its own integers.

    Unsigned weights are safe: kernels widen both sides to 16 bits before they multiply.

    Args:
        plan: of the layer; the channels' extremes are divided by its divisor.
        stored: the graph's own weight, as it is stored.
        statistics: of the layer's input, with channels, before any divisor.

    Raises:
        CalibrationError: the statistics have no channels, or not the weight's.
        CompileError: the plan does not fit the weight.
    """
    integers, _ = rounded_weight(plan, stored)
    weights = integers if plan.layer.output_axis == 0 else integers.T
    parameters = activation_parameters(
        plan.activation, plan.integers, symmetric=plan.symmetric, dtype=stored.dtype
    )
    lowest, highest = channel_codes(statistics, parameters, plan.divisor)
    found = predict(plan.layer.path, weights, lowest, highest)
    return replace(found, pairs_at_risk=0, worst=0.0) if plan.integers.endswith("U8") else found


def channel_codes(
    statistics: TensorStatistics,
    parameters: TensorParameters,
    divisor: NDArray[np.float32] | None = None,
) -> tuple[Codes, Codes]:
    """Return the smallest and the largest byte that occur in each channel of an activation.

    Args:
        statistics: of the activation, with channels.
        parameters: its scale and zero point.
        divisor: positive; what smoothing divides each channel by, shape [channels]; None: 1.

    Returns:
        Unsigned as the kernels see them, shape [channels] each.

    Raises:
        CalibrationError: the statistics have no channels.
    """
    low, high = statistics.channel_minimum, statistics.channel_maximum
    if low is None or high is None:
        raise CalibrationError(
            "predicting saturation needs the extremes of every channel",
            why="the statistics were taken without channels",
            hint="calibrate again with channels kept apart",
        )
    if divisor is not None:
        low, high = low / divisor, high / divisor
    return unsigned_codes(low, parameters), unsigned_codes(high, parameters)


def unsigned_codes(values: NDArray[np.float32], parameters: TensorParameters) -> Codes:
    """Quantize activations as QuantizeLinear does; signed bytes are shifted by 128.

    Args:
        values: any shape.
        parameters: scale and zero point of the tensor.

    Returns:
        Bytes of the same shape.
    """
    shift = 0 if parameters.zero_point.dtype == np.uint8 else UNSIGNED_SHIFT
    steps = np.rint(values / parameters.scale) + (int(parameters.zero_point) + shift)
    codes: Codes = np.clip(steps, 0, _LARGEST_CODE).astype(np.uint8)
    return codes


def predict(path: str, weights: NDArray[np.int8], lowest: Codes, highest: Codes) -> Saturation:
    """Predict from the bytes that occur; tight: some activation between the extremes gets there.

    Args:
        path: of the layer.
        weights: integers, shape [out, channels].
        lowest: smallest byte of each input channel, shape [channels].
        highest: largest byte, likewise.

    Raises:
        CalibrationError: there are not as many bytes as the weight has channels.
    """
    if lowest.shape != weights.shape[1:] or highest.shape != weights.shape[1:]:
        raise CalibrationError(
            f"{path}: extremes of {lowest.size} channels for a weight of {weights.shape[1]}",
            hint="calibrate again with the graph that is quantized",
        )
    largest, smallest = _extreme_sums(weights, lowest, highest, _left_channels(lowest.size))
    return Saturation(
        path=path,
        pairs_at_risk=int(np.count_nonzero(_saturates(largest) | _saturates(smallest))),
        num_pairs=largest.size,
        worst=max(
            float(largest.max(initial=0)) / LARGEST_SUM,
            float(smallest.min(initial=0)) / SMALLEST_SUM,
        ),
    )


def _extreme_sums(
    weights: NDArray[np.int8], lowest: Codes, highest: Codes, left: NDArray[np.intp]
) -> tuple[Integers, Integers]:
    """Return the largest and the smallest sum that each pair can have, shape [out, pairs]."""
    wide = weights.astype(np.int32)
    at_lowest, at_highest = wide * lowest, wide * highest
    largest, smallest = np.maximum(at_lowest, at_highest), np.minimum(at_lowest, at_highest)
    return largest[:, left] + largest[:, left + 1], smallest[:, left] + smallest[:, left + 1]


def _left_channels(channels: int) -> NDArray[np.intp]:
    """Return the left channel of every pair that kernels may add.

    Where four divides the channels, as in every common encoder, these are the even ones. Else
    oneDNN's AVX2 kernel cuts some widths (258, 385, 386, 389 …) into two blocks of odd width and
    pairs the second from its own start, so that any two neighbours may meet.
    """
    return np.arange(0, channels - 1, 2 if channels % _GROUP == 0 else 1)


def _saturates(sums: Integers) -> NDArray[np.bool_]:
    return (sums > LARGEST_SUM) | (sums < SMALLEST_SUM)


# -------------------------------------------------------------------------- simulation


def simulate_pairs(activations_u8: Codes, weights_s8: NDArray[np.int8]) -> Integers:
    """Multiply as VPMADDUBSW, VPMADDWD and VPADDD do: pairs (2i, 2i + 1) saturate at 16 bits.

    An odd last channel is alone and cannot saturate.

    Args:
        activations_u8: shape [rows, channels].
        weights_s8: shape [out, channels].

    Returns:
        Accumulators before zero points and scales, shape [rows, out], int32.
    """
    sums = _exact_product(activations_u8, weights_s8)
    for outputs, found in _saturating(activations_u8, weights_s8):
        sums[:, outputs] += np.clip(found, SMALLEST_SUM, LARGEST_SUM) - found
    return sums


def count_saturated(activations_u8: Codes, weights_s8: NDArray[np.int8]) -> int:
    """Count the pairs that saturate over all rows and output channels.

    There are rows * out * (channels // 2) of them; on rows of real texts, the share estimates the
    chance that `Saturation` only calls possible.

    Args:
        activations_u8: shape [rows, channels].
        weights_s8: shape [out, channels].
    """
    found = _saturating(activations_u8, weights_s8)
    return sum(int(np.count_nonzero(_saturates(sums))) for _, sums in found)


def _exact_product(activations: Codes, weights: NDArray[np.int8]) -> Integers:
    """Multiply without overflow: sums of byte products are exact in float64, and BLAS is fast."""
    product = activations.astype(np.float64) @ weights.astype(np.float64).T
    return product.astype(np.int32)


def _saturating(
    activations: Codes, weights: NDArray[np.int8]
) -> Iterable[tuple[NDArray[np.intp], Integers]]:
    """Yield output channels and sums [rows, outputs] of the pairs that these rows can saturate."""
    if not activations.size:
        return
    extremes = activations.min(axis=0), activations.max(axis=0)
    left = np.arange(0, activations.shape[1] - 1, 2)
    largest, smallest = _extreme_sums(weights, *extremes, left)
    risky = _saturates(largest) | _saturates(smallest)
    for pair in np.flatnonzero(risky.any(axis=0)):
        outputs = np.flatnonzero(risky[:, pair])
        channels = slice(2 * pair, 2 * pair + 2)
        wide = activations[:, channels].astype(np.int32)
        yield outputs, wide @ weights[outputs, channels].astype(np.int32).T
