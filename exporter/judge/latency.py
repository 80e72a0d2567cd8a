"""Statistics of latency samples that a device took; nothing is timed here."""

from __future__ import annotations

from functools import cache

import numpy as np

from exporter.judge.drift import Float64Array
from exporter.judge.intervals import median_estimate
from exporter.values import Estimate, Latency, TimedSeries
from targets.contract import Interval
from targets.errors import StepError

_MIN_ROUNDS_FOR_RATIO = 2


def summarize(series: TimedSeries, artifact: str, baseline: str | None) -> Latency:
    """Summarize one artifact's samples of one workload.

    The speedup is paired by round, because artifacts that ran within the same round met
    the same machine: the median over rounds of (baseline's total / this total), with the
    interval of that median taken over rounds. Few or noisy rounds widen the interval.
    A single round has no interval, hence no speedup.

    Args:
        series: interleaved samples.
        artifact: whose samples to summarize.
        baseline: whose samples to compare with; None: no speedup.

    Raises:
        StepError: if an artifact has no samples, or they are not positive, finite and of
            shape [rounds, samples_per_round] with as many rounds as the baseline's.
    """
    samples_ms = _samples(series, artifact)
    totals_ms = samples_ms.sum(axis=1)
    texts_per_round = series.texts_per_sample * samples_ms.shape[1]
    return Latency(
        workload=series.workload,
        num_samples=samples_ms.size,
        texts_per_sample=series.texts_per_sample,
        median_ms=float(np.median(samples_ms)),
        p90_ms=supported_percentile(samples_ms, 0.90),
        p99_ms=supported_percentile(samples_ms, 0.99),
        mean_ms=float(samples_ms.mean()),
        texts_per_s=float(texts_per_round / np.median(totals_ms) * 1000.0),
        spread=relative_spread(totals_ms),
        speedup=None if baseline is None else _speedup(_samples(series, baseline), samples_ms),
    )


@cache
def samples_for_percentile(percentile: float, confidence: float = 0.99) -> int:
    """Return how many samples a percentile needs before it may be claimed.

    MLPerf LoadGen's early-stopping bound with tolerance 0: the smallest n for which, if
    the latency stood exactly at its true percentile, at most one of n samples would lie
    above it with probability below 1 - confidence, P(Binomial(n, 1 - percentile) <= 1).
    64 for p90 and 662 for p99 at 99 % (mlcommons/inference, loadgen/early_stopping.cc,
    `odds` and `find_min_passing` with t = 1; loadgen/results.cc asks for h + 1 queries).

    Args:
        percentile: in (0, 1).
        confidence: in (0, 1).
    """
    num_samples = 2
    while _at_most_one_above(num_samples, percentile) >= 1.0 - confidence:
        num_samples += 1
    return num_samples


def supported_percentile(samples_ms: Float64Array, percentile: float) -> float | None:
    """Return the sample percentile, or None where the samples do not support it."""
    if samples_ms.size < samples_for_percentile(percentile):
        return None
    return float(np.quantile(samples_ms, percentile))


def relative_spread(totals_ms: Float64Array) -> float:
    """Return the interquartile range over the median: the noise between rounds.

    0 for a single round, which has nothing to be compared with.
    """
    low, middle, high = np.quantile(totals_ms, [0.25, 0.5, 0.75])
    return float((high - low) / middle)


def _at_most_one_above(num_samples: int, percentile: float) -> float:
    none = percentile**num_samples
    one = num_samples * (1.0 - percentile) * percentile ** (num_samples - 1)
    return none + one


def _speedup(baseline_ms: Float64Array, samples_ms: Float64Array) -> Estimate | None:
    if baseline_ms.shape != samples_ms.shape:
        raise StepError(
            f"latency samples of shape {samples_ms.shape} cannot be paired with the "
            f"baseline's {baseline_ms.shape}",
            why="both must come from the same interleaved rounds",
        )
    if len(samples_ms) < _MIN_ROUNDS_FOR_RATIO:
        return None
    # In logarithms "twice as fast" and "half as fast" are equally far from 1, so swapping
    # the two artifacts inverts the result exactly.
    ratio = median_estimate(np.log(baseline_ms.sum(axis=1) / samples_ms.sum(axis=1)))
    return Estimate(
        value=float(np.exp(ratio.value)),
        interval=Interval(
            low=float(np.exp(ratio.interval.low)),
            high=float(np.exp(ratio.interval.high)),
            confidence=ratio.interval.confidence,
        ),
        num_samples=ratio.num_samples,
    )


def _samples(series: TimedSeries, artifact: str) -> Float64Array:
    if artifact not in series.samples_ms:
        raise StepError(
            f"workload {series.workload!r}: no latency samples of {artifact!r}",
            why=f"samples were taken of {', '.join(sorted(series.samples_ms)) or 'nothing'}",
        )
    samples_ms = np.asarray(series.samples_ms[artifact], np.float64)
    usable = np.isfinite(samples_ms) & (samples_ms > 0.0)
    if samples_ms.ndim != 2 or samples_ms.size == 0 or not usable.all():
        raise StepError(
            f"workload {series.workload!r}: the latency samples of {artifact!r} are unusable",
            why="they must be positive, finite and of shape [rounds, samples_per_round], "
            f"and are of shape {samples_ms.shape} with {int((~usable).sum())} bad samples",
        )
    return samples_ms
