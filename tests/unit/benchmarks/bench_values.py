"""Synthetic samples and fidelities whose verdict is known by construction."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from exporter.values import Estimate, Fidelity, TimedSeries
from targets.contract import Interval

OURS, PEER = "ours", "peer"
ROUNDS = 7


def series(times_ms: Mapping[str, float], *, noise: float = 0.01, rounds: int = ROUNDS):
    """Rounds around the given medians; the same seed for all, so ratios are exact ± noise."""
    generator = np.random.default_rng(3)
    return TimedSeries(
        workload="1x16",
        texts_per_sample=1,
        samples_ms={
            name: median * (1 + noise * generator.uniform(-1, 1, (rounds, 5)))
            for name, median in times_ms.items()
        },
    )


def fidelity(mean_cosine: float, overlap: float | None) -> Fidelity:
    def estimate(value: float) -> Estimate:
        return Estimate(value=value, interval=Interval(low=value, high=value), num_samples=100)

    return Fidelity(
        evaluation="synthetic",
        split="test",
        num_texts=100,
        num_queries=50,
        k=10,
        mean_cosine=estimate(mean_cosine),
        p1_cosine=estimate(mean_cosine),
        min_cosine=mean_cosine,
        overlap_at_k=None if overlap is None else estimate(overlap),
        labels=(),
        stability=None,
        slices=(),
        worst=(),
    )
