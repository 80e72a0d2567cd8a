"""Whether another way of running the same artifact is worth leaving the default for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from exporter.optimize.rounds import Protocol
from exporter.optimize.workloads import MIX_BATCHED, MIX_SINGLE
from exporter.values import Estimate
from targets.contract import RunPlan, RuntimeVariant

DEFAULT = "default"
"""Name of the target's own plan among its variants."""

KEPT = "no other way of running it is measurably faster"
UNTRIED = "no other way of running it was tried"

MIN_COSINE = 0.9999
"""Least cosine of a text's embeddings by a variant and by the default: it is one artifact."""

MIN_GAIN = 0.03
"""Smaller gains in the first rounds are within the noise and not looked at again."""

CONFIRMING = Protocol(rounds=6, round_s=0.0)
"""Six rounds are the fewest whose order statistics give a 95 % interval."""


def matters(variant: RuntimeVariant, plan: RunPlan, num_threads: int, mixes: Sequence[str]) -> bool:
    """Say whether a variant can change anything for the better in the mixes that are timed."""
    if variant.batched_only and MIX_SINGLE in mixes:
        return False
    same = (
        dict(variant.plan.options) == dict(plan.options)
        and variant.num_threads == num_threads
        and variant.plan.length_multiple == plan.length_multiple
    )
    return not same or (
        MIX_BATCHED in mixes and variant.plan.max_batch_tokens != plan.max_batch_tokens
    )


def most_promising(gains: Mapping[str, Estimate]) -> str | None:
    """Return the variant that deserves more rounds; None: nobody gains enough.

    Args:
        gains: variant → how many times as fast as the default, from few rounds.
    """
    best = max(gains, key=lambda name: gains[name].value, default=None)
    return best if best is not None and gains[best].value >= 1.0 + MIN_GAIN else None


def is_confirmed(gain: Estimate) -> bool:
    """Say whether a gain over the default is beyond the noise of its rounds."""
    return gain.interval.low > 1.0 and gain.value >= 1.0 + MIN_GAIN


def outcome_of(gain: Estimate, where: str, *, looked_twice: bool) -> str:
    """Say what a variant gained, and whether that is beyond the noise where that was asked."""
    found = f"{gain.value:.2f}x the default on {where}"
    if not looked_twice:
        return found
    noise = "beyond" if is_confirmed(gain) else "within"
    return f"{found} [{gain.interval.low:.2f}, {gain.interval.high:.2f}], {noise} the noise"
