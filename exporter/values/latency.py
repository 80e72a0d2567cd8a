"""Samples of time, and what they come to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exporter.values.fidelity import Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedSeries:
    """Interleaved samples of one workload on several artifacts.

    Args:
        workload: its name.
        texts_per_sample: texts embedded per sample.
        samples_ms: artifact name → samples by round, shape [rounds, samples_per_round].
    """

    workload: str
    texts_per_sample: int
    samples_ms: Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """One workload's latency on one artifact, with its ratio to FP32 from the same rounds.

    Percentiles are None when the samples do not support them (MLPerf LoadGen's
    early-stopping rule). `speedup` is FP32 time / this time, paired by round.
    """

    workload: str
    num_samples: int
    texts_per_sample: int
    median_ms: float
    p90_ms: float | None
    p99_ms: float | None
    mean_ms: float
    texts_per_s: float
    spread: float
    speedup: Estimate | None
