"""Ranges of activations, chosen from their statistics; no second pass over the texts.

Everything is computed in units of the histogram's bin width. The width is a power of two, so that
data scaled by a power of two gives exactly the scaled range.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from targets.contract import Calibrator
from targets.errors import CalibrationError
from targets.quantization.histogram import Histogram
from targets.quantization.statistics import TensorStatistics

Floats = NDArray[np.float64]

NUM_ENTROPY_BINS = 2048
"""Bins of absolute values from zero to the largest (Migacz 2017, pseudocode)."""
ZERO_TENSOR_WIDTH = 2.0**-16
"""End of the range of a tensor that is zero everywhere: any scale is right for it, and this is
the smallest power of two whose 255th part is still above zero in float16."""
_AS_GOOD_AS_ZERO = 2.0**-100
"""Tensors below it are taken as zero: their scale might be subnormal in float32, or nothing."""
_SHRINKS = 2.0 ** (-np.arange(321) / 32)
"""Parts of the widest range that the search for the least error starts with. The error has a
ripple wherever many values lie close together, hence the small steps."""
_FACTORS = tuple(
    2.0 ** np.linspace(-octaves, octaves, steps)
    for octaves, steps in ((2, 129), (1 / 8, 33), (1 / 64, 17))
)
"""How far each end is then moved, round by round; the middle one is 1, so it never gets worse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """What quantization represents: low <= 0 <= high, and not both zero.

    Raises:
        CalibrationError: if the ends are not so.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        finite = math.isfinite(self.low) and math.isfinite(self.high)
        if not finite or not self.low <= 0 <= self.high or self.low == self.high:
            raise CalibrationError(
                f"{self.low} to {self.high} is no range",
                why="a quantized range holds zero, because padding and ReLU give exact zeros",
                hint="give finite ends with low <= 0 <= high and low < high",
            )


def choose_range(
    statistics: TensorStatistics,
    method: Calibrator,
    *,
    symmetric: bool,
    num_levels: int = 256,
    percentile: float = 99.99,
) -> Range:
    """Choose the range that an activation is quantized in.

    It never reaches beyond the values seen, beyond their largest absolute value where it is
    symmetric, nor below one bin of the histogram on a side that has values. A tensor of zeros
    gets a range of `ZERO_TENSOR_WIDTH`.

    Args:
        statistics: of the tensor.
        method: "minmax": everything seen. "percentile": `percentile` per cent of the values, the
            rest cut half on each side, or by absolute value. "entropy": see
            `entropy_divergences`; symmetric by nature, so that an asymmetric range is clipped to
            the threshold on both sides. "mse": least expected squared error.
        symmetric: whether low must be -high (no zero point).
        num_levels: integers that the type has, 256 for int8 and uint8.
        percentile: for "percentile", above 0, at most 100.

    Raises:
        CalibrationError: if the method is unknown ("auto" is decided before) or the percentile
            is impossible.
    """
    if statistics.absmax < _AS_GOOD_AS_ZERO:
        return Range(low=-ZERO_TENSOR_WIDTH if symmetric else 0.0, high=ZERO_TENSOR_WIDTH)
    width = statistics.histogram.bin_width
    bounds = _bounds(statistics, symmetric)
    if method == "minmax":
        chosen = bounds
    elif method == "percentile":
        chosen = _percentile_range(statistics.histogram, _checked(percentile), symmetric)
    elif method == "entropy":
        threshold = _entropy_threshold(statistics, num_levels)
        chosen = (-threshold, threshold)
    elif method == "mse":
        chosen = _least_error_range(statistics.histogram, bounds, num_levels, symmetric)
    else:
        raise CalibrationError(
            f"{method!r} does not choose a range",
            hint="name one of minmax, percentile, entropy, mse",
        )
    low = max(min(chosen[0], -1.0), bounds[0])
    high = min(max(chosen[1], 1.0), bounds[1])
    return Range(low=low * width, high=high * width)


def _bounds(statistics: TensorStatistics, symmetric: bool) -> tuple[float, float]:
    """Return the widest range that makes sense, in bins."""
    width = statistics.histogram.bin_width
    if symmetric:
        return -statistics.absmax / width, statistics.absmax / width
    # Adding zero turns a negative zero into a positive one.
    return min(statistics.minimum, 0.0) / width + 0.0, max(statistics.maximum, 0.0) / width + 0.0


# --------------------------------------------------------------------------- percentile


def _checked(percentile: float) -> float:
    if not 0 < percentile <= 100:
        raise CalibrationError(
            f"{percentile} is no percentile",
            hint="give a share of the values in per cent, above 0 and at most 100",
        )
    return percentile


def _percentile_range(
    histogram: Histogram, percentile: float, symmetric: bool
) -> tuple[float, float]:
    if symmetric:
        threshold = _quantile(histogram.absolute(), 0, percentile / 100)
        return -threshold, threshold
    cut = (100 - percentile) / 200
    counts, first = histogram.counts, histogram.first_bin
    return _quantile(counts, first, cut), _quantile(counts, first, 1 - cut)


def _quantile(counts: NDArray[np.int64], first_bin: int, share: float) -> float:
    """Return where a share of the values lies below, spread evenly inside a bin; in bins."""
    cumulative = np.cumsum(counts)
    rank = share * int(cumulative[-1])
    index = int(np.searchsorted(cumulative, rank))
    into_bin = rank - (int(cumulative[index]) - int(counts[index]))
    return first_bin + index + into_bin / max(int(counts[index]), 1)


# ------------------------------------------------------------------------------ entropy


def _entropy_threshold(statistics: TensorStatistics, num_levels: int) -> float:
    """Return the threshold of least divergence, in bins of the histogram.

    Two things that the source leaves open: a candidate that clips more than half of the values is
    left out (a tensor far from zero, clipped as a whole into one bin, would diverge by nothing),
    and of equal divergences, which occur where few bins hold anything, the widest is taken.
    """
    counts = absolute_bins(statistics)
    divergences = entropy_divergences(counts, num_levels // 2)
    kept = np.cumsum(counts)[num_levels // 2 - 1 :]
    divergences[kept < counts.sum() / 2] = np.inf
    least = np.flatnonzero(divergences <= divergences.min() + 1e-12)[-1]
    num_bins = num_levels // 2 + int(least)
    absmax_bins = statistics.absmax / statistics.histogram.bin_width
    return (num_bins + 0.5) * (absmax_bins / NUM_ENTROPY_BINS)


def absolute_bins(statistics: TensorStatistics) -> Floats:
    """Spread absolute values over exactly 2048 bins from zero to the largest.

    The histogram's own bins are narrower; one that lies across a border is divided in proportion.
    Empty stays empty: the divergence looks at that.

    Returns:
        Shape [2048], float64, whose sum is the number of values.
    """
    counts = statistics.histogram.absolute()
    width = statistics.absmax / statistics.histogram.bin_width / NUM_ENTROPY_BINS
    left = np.arange(counts.size)
    target = np.minimum((left / width).astype(np.int64), NUM_ENTROPY_BINS - 1)
    share = np.clip((target + 1) * width - left, 0.0, 1.0)
    share[target == NUM_ENTROPY_BINS - 1] = 1.0
    spread = np.zeros(NUM_ENTROPY_BINS + 1)
    spread += np.bincount(target, counts * share, NUM_ENTROPY_BINS + 1)
    spread += np.bincount(target + 1, counts * (1 - share), NUM_ENTROPY_BINS + 1)
    return spread[:NUM_ENTROPY_BINS]


def entropy_divergences(counts: Floats, num_levels: int = 128) -> Floats:
    """Measure what each clipping threshold loses, as TensorRT's entropy calibrator does.

    Candidate i keeps the bins below i. P is those bins with all outliers added to the last one.
    Q is those bins without outliers, merged into `num_levels` levels and spread again evenly over
    the bins of each level that are not empty in P. Both are normalized. Source: Szymon Migacz,
    "8-bit Inference with TensorRT", GTC 2017, pseudocode of the entropy calibration. It leaves
    open how i bins are divided into levels: here bin j goes to level floor(j * num_levels / i),
    as in NVIDIA's pytorch-quantization.

    Args:
        counts: absolute values per bin from zero, shape [num_bins], not all zero.
        num_levels: levels of one sign, 128 for int8.

    Returns:
        KL(P || Q) in nats for i = num_levels … num_bins, shape [num_bins - num_levels + 1];
        infinite where P has outliers and Q has nothing in the level that they were added to.
    """
    sizes = np.arange(num_levels, counts.size + 1)
    borders = -(-np.arange(num_levels + 1) * sizes[:, None] // num_levels)
    inside, occupied, xlogx = (_prefix(a) for a in (counts, counts > 0, _xlogx(counts)))
    total, kept, last = inside[-1], inside[sizes], counts[sizes - 1]
    outliers = total - kept
    merged = np.diff(inside[borders])
    support = np.diff(occupied[borders])
    support[:, -1] += (last == 0) & (outliers > 0)
    reference = merged.copy()
    reference[:, -1] += outliers
    # Sum of p log p - p log q over bins; q is constant within a level.
    p_log_p = xlogx[sizes - 1] + _xlogx(last + outliers)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_q = np.log(merged / support)
        p_log_q = np.where(reference > 0, reference * log_q, 0.0).sum(axis=1)
        divergences: Floats = (p_log_p - p_log_q) / total - np.log(total / kept)
    divergences[np.isneginf(p_log_q)] = np.inf
    return divergences


def _prefix(values: NDArray[np.generic]) -> Floats:
    """Return sums of the first 0 … n values, shape [n + 1]; empty bins add an exact zero."""
    return np.append(0.0, np.cumsum(values.astype(np.float64)))


def _xlogx(values: Floats) -> Floats:
    return values * np.log(np.where(values > 0, values, 1.0))


# -------------------------------------------------------------------------------- error


def _least_error_range(
    histogram: Histogram, widest: tuple[float, float], num_levels: int, symmetric: bool
) -> tuple[float, float]:
    """Search the range of least expected squared error, first both ends together, then each."""

    def best(lows: Floats, highs: Floats) -> tuple[float, float]:
        errors = squared_errors(histogram, lows, highs, num_levels, symmetric)
        least = int(np.argmin(errors))
        return float(lows[least]), float(highs[least])

    low, high = best(widest[0] * _SHRINKS, widest[1] * _SHRINKS)
    for factors in _FACTORS:
        lows = np.maximum(low * factors, widest[0])
        highs = np.minimum(high * factors, widest[1])
        if symmetric:
            low, high = best(lows, highs)
            continue
        if low < 0:
            low, high = best(lows, np.full_like(lows, high))
        if high > 0:
            low, high = best(np.full_like(highs, low), highs)
    return low, high


def squared_errors(
    histogram: Histogram, lows: Floats, highs: Floats, num_levels: int, symmetric: bool
) -> Floats:
    """Compute the expected squared error of quantizing in each of several ranges.

    Values are taken as spread evenly within a bin: with all of them at its centre, a step that
    divides the bin width would seem free of error. The scale is (high - low) / (num_levels - 1)
    and the zero point round(-low / scale); symmetric: high / (num_levels / 2 - 1) and none.

    Args:
        histogram: of the tensor.
        lows: shape [candidates], in bins, at most zero.
        highs: shape [candidates], in bins, above the lows, at least zero.
        num_levels: integers that the type has.
        symmetric: which of the two schemes.

    Returns:
        Mean squared error in squared bins, shape [candidates].
    """
    if symmetric:
        scales = highs / (num_levels // 2 - 1)
        smallest = np.full_like(scales, -(num_levels // 2))
    else:
        scales = (highs - lows) / (num_levels - 1)
        smallest = -np.rint(-lows / scales)
    largest = smallest + (num_levels - 1)
    scales, smallest, largest = scales[:, None], smallest[:, None], largest[:, None]
    edges = histogram.first_bin + np.arange(histogram.counts.size + 1.0)
    integers = np.clip(np.rint(edges / scales), smallest, largest)
    # Antiderivative of the squared error: a whole step holds scale^3 / 12.
    rest = edges - integers * scales
    area = integers * (scales**3 / 12) + rest * rest * rest / 3
    return np.diff(area) @ histogram.counts / histogram.num_values
