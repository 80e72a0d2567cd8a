"""The rule: a peer beats us at a workload when it is surely faster and also closer to FP32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from exporter.judge import summarize
from exporter.values import Estimate, Fidelity, TimedSeries

_ROUNDING = 1e-9
"""Mean cosines of two FP32 graphs of one model differ by less than this for no reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dominance:
    """What one workload says of ours against the peers.

    Args:
        workload: its name.
        time_ratios: peer → its time / ours, paired by round.
        closer: peers whose embeddings are closer to FP32 than ours.
        dominated_by: peers that are both faster and closer.
    """

    workload: str
    time_ratios: Mapping[str, Estimate]
    closer: tuple[str, ...]
    dominated_by: tuple[str, ...]

    @property
    def line(self) -> str:
        """The verdict in one line."""
        if not self.dominated_by:
            return f"{self.workload}: no peer is both faster and closer"
        beaten = ", ".join(f"{name} ({self._in_words(name)})" for name in self.dominated_by)
        return f"{self.workload}: BEATEN by {beaten}"

    def _in_words(self, name: str) -> str:
        ratio = self.time_ratios[name]
        return (
            f"{ratio.value:.2f} [{ratio.interval.low:.2f}, {ratio.interval.high:.2f}] of our time"
        )


def is_closer(peer: Fidelity, ours: Fidelity) -> bool:
    """Say whether a peer's embeddings are closer to FP32 by overlap@k or mean cosine."""
    if peer.mean_cosine.value > ours.mean_cosine.value + _ROUNDING:
        return True
    if peer.overlap_at_k is None or ours.overlap_at_k is None:
        return False
    return peer.overlap_at_k.value > ours.overlap_at_k.value


def is_faster(time_ratio: Estimate) -> bool:
    """Say whether the whole interval of (peer's time / our time) lies below 1."""
    return time_ratio.interval.high < 1.0


def judge_dominance(
    series: TimedSeries, fidelities: Mapping[str, Fidelity], ours: str, peers: Sequence[str]
) -> Dominance:
    """Apply the rule to one workload.

    Args:
        series: interleaved samples of ours and of every peer, at least two rounds.
        fidelities: artifact → its distance from FP32.
        ours: name of our artifact.
        peers: names of the peers.

    Raises:
        StepError: samples are missing or unusable.
        ValueError: a single round, which has no interval.
    """
    ratios = {peer: time_ratio(series, peer, ours) for peer in peers}
    closer = tuple(peer for peer in peers if is_closer(fidelities[peer], fidelities[ours]))
    return Dominance(
        workload=series.workload,
        time_ratios=ratios,
        closer=closer,
        dominated_by=tuple(peer for peer in closer if is_faster(ratios[peer])),
    )


def time_ratio(series: TimedSeries, artifact: str, other: str) -> Estimate:
    """Return (the artifact's time / the other's time), paired by round.

    Raises:
        StepError: samples are missing or unusable.
        ValueError: a single round, which has no interval.
    """
    # The other's speed-up over the artifact is the artifact's time over the other's.
    ratio = summarize(series, other, artifact).speedup
    if ratio is None:
        raise ValueError(f"workload {series.workload!r} was timed in a single round")
    return ratio
