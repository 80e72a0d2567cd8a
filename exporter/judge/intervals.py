"""Confidence intervals that stay honest for small samples.

Everything here is two-sided at 95 %: 2.5 % may lie beyond either end. Three kinds of
figures need an interval, and each gets the one that fits it:

- means (cosine, overlap, metric differences): percentile bootstrap, widened for few
  samples and for what a sample of this size may have missed altogether;
- a quantile of texts (p1): order statistics, exact for any distribution;
- the median ratio of a few timed rounds: interpolated order statistics, or Student's t
  where there are too few rounds for any order statistic to reach 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from exporter.values import Estimate
from targets.contract import Interval

Float64Array = NDArray[np.float64]

CONFIDENCE = 0.95
NUM_RESAMPLES = 2000
_TAIL = (1.0 - CONFIDENCE) / 2.0
_CHUNK_ELEMENTS = 1 << 20
_MIN_ROUNDS_FOR_ORDER_STATISTICS = 6


# ---------------------------------------------------------------------- what went unseen


def unseen_share(num_samples: int) -> float:
    """Return the largest share of a population that `num_samples` may all have missed.

    The exact form of the "rule of three": (1 - share) ** n = 2.5 % (Hanley and
    Lippman-Hand, "If nothing goes wrong, is everything all right?", JAMA 1983).
    """
    return float(1.0 - _TAIL ** (1.0 / num_samples))


def samples_to_see(share: float) -> int:
    """Return how many samples show at least one of a `share` in (0, 1) of the population.

    The inverse of `unseen_share`: 368 samples for 1 %.
    """
    return math.ceil(math.log(_TAIL) / math.log1p(-share))


def allow_for_unseen(estimate: Estimate, *, worst: float, best: float) -> Estimate:
    """Widen a mean's interval by what the sample may have missed.

    Samples that happen to agree have no spread to resample, so the bootstrap alone would
    call three perfect queries certain. A share of `unseen_share(n)` may be of a kind that
    the sample does not show: the low end lets it be as bad as `worst`, the high end as
    good as `best`.
    """
    missed = unseen_share(estimate.num_samples)
    value = estimate.value
    interval = Interval(
        low=min(estimate.interval.low, value + missed * (worst - value)),
        high=max(estimate.interval.high, value + missed * (best - value)),
        confidence=estimate.interval.confidence,
    )
    return Estimate(value=value, interval=interval, num_samples=estimate.num_samples)


# ----------------------------------------------------------------------------- bootstrap


def resample_counts(
    num_samples: int, seed: int, num_resamples: int = NUM_RESAMPLES
) -> Iterator[Float64Array]:
    """Draw bootstrap resamples as "how often was sample i drawn", in chunks of rows.

    A resampled mean is then one matrix product, for any number of metrics at once, and
    metrics that share the draws are paired.

    Yields:
        counts, shape [rows, num_samples], every row sums to num_samples.
    """
    rng = np.random.default_rng(seed)
    rows_per_chunk = max(1, _CHUNK_ELEMENTS // num_samples)
    for start in range(0, num_resamples, rows_per_chunk):
        rows = min(rows_per_chunk, num_resamples - start)
        drawn = rng.integers(0, num_samples, (rows, num_samples))
        drawn += np.arange(rows)[:, None] * num_samples
        counts = np.bincount(drawn.ravel(), minlength=rows * num_samples)
        yield counts.reshape(rows, num_samples).astype(np.float64)


def percentile_interval(resampled: Float64Array, num_samples: int) -> Interval:
    """Return the expanded percentile interval of resampled figures, shape [num_resamples].

    The plain percentile interval is too narrow for few samples; the expanded one takes
    the percentiles at which Student's t stands (Hesterberg, "What Teachers Should Know
    About the Bootstrap", The American Statistician 2015, section 4.1).
    """
    tail = _expanded_tail(num_samples)
    low, high = np.quantile(resampled, [tail, 1.0 - tail])
    return Interval(low=float(low), high=float(high), confidence=CONFIDENCE)


def mean_estimates(
    values: Float64Array, seed: int, num_resamples: int = NUM_RESAMPLES
) -> tuple[Estimate, ...]:
    """Estimate the mean of every column from the same resamples.

    Args:
        values: one row per sample (text or query), shape [num_samples, num_metrics].
        seed: seed of the resampling.
        num_resamples: number of bootstrap resamples.
    """
    num_samples = len(values)
    chunks = resample_counts(num_samples, seed, num_resamples)
    resampled = np.concatenate([counts @ values for counts in chunks]) / num_samples
    return tuple(
        Estimate(
            value=float(mean),
            interval=percentile_interval(column, num_samples),
            num_samples=num_samples,
        )
        for mean, column in zip(values.mean(axis=0), resampled.T, strict=True)
    )


def _expanded_tail(num_samples: int) -> float:
    if num_samples < 2:
        return 0.0
    t = _student_t(num_samples - 1)
    return NormalDist().cdf(-t * math.sqrt(num_samples / (num_samples - 1)))


def _student_t(degrees: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 1.0 - _TAIL))


# ----------------------------------------------------------------------- order statistics


def quantile_estimate(
    values: Float64Array, quantile: float, *, lowest: float, highest: float
) -> Estimate:
    """Estimate a quantile with the interval between two of the samples themselves.

    Exact for every distribution, because the number of samples below the true quantile is
    binomial (David and Nagaraja, "Order Statistics", 3rd ed., section 7.1). Where the
    sample is too small for such a bound, the end is `lowest` or `highest`: the range of
    the figure, which claims nothing.

    Args:
        values: shape [num_samples].
        quantile: in (0, 1).
        lowest: smallest value that the figure can take.
        highest: largest value that the figure can take.
    """
    from scipy.special import bdtr

    ordered = np.sort(values)
    num_samples = len(ordered)
    below = bdtr(np.arange(num_samples, dtype=np.float64), num_samples, quantile)
    certain_low = np.flatnonzero(below <= _TAIL)
    certain_high = np.flatnonzero(below >= 1.0 - _TAIL)
    interval = Interval(
        low=float(ordered[certain_low[-1]]) if len(certain_low) else lowest,
        high=float(ordered[certain_high[0]]) if len(certain_high) else highest,
        confidence=CONFIDENCE,
    )
    value = float(np.quantile(ordered, quantile, method="inverted_cdf"))
    return Estimate(value=value, interval=interval, num_samples=num_samples)


def median_estimate(values: Float64Array) -> Estimate:
    """Estimate the median of at least two values, shape [num_samples].

    From six values on: order statistics, interpolated to 95 % (Hettmansperger and
    Sheather, "Confidence intervals based on interpolated order statistics", Statistics &
    Probability Letters 1986). A bootstrap of the median would cover only about 87 % with
    seven values. Below six no pair of order statistics reaches 95 %: Student's t.
    """
    ordered = np.sort(values)
    enough = len(ordered) >= _MIN_ROUNDS_FOR_ORDER_STATISTICS
    low, high = _interpolated_ends(ordered) if enough else _student_ends(ordered)
    return Estimate(
        value=float(np.median(ordered)),
        interval=Interval(low=low, high=high, confidence=CONFIDENCE),
        num_samples=len(ordered),
    )


def _student_ends(values: Float64Array) -> tuple[float, float]:
    mean = float(values.mean())
    half = _student_t(len(values) - 1) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return mean - half, mean + half


def _interpolated_ends(ordered: Float64Array) -> tuple[float, float]:
    from scipy.special import bdtr

    n = len(ordered)
    # Confidence of [d-th lowest, d-th highest], falling with the depth d = 1, 2, ….
    confidence = 1.0 - 2.0 * bdtr(np.arange(n // 2, dtype=np.float64), n, 0.5)
    depth = int(np.flatnonzero(confidence >= CONFIDENCE)[-1]) + 1
    outer, inner = confidence[depth - 1], confidence[depth]
    share = float((outer - CONFIDENCE) / (outer - inner))
    weight = (n - depth) * share / (depth + (n - 2 * depth) * share)
    low = (1 - weight) * ordered[depth - 1] + weight * ordered[depth]
    high = (1 - weight) * ordered[n - depth] + weight * ordered[n - depth - 1]
    return float(low), float(high)
