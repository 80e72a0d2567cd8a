"""Int8 against the best float once more, by themselves, both run in the same way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from exporter.optimize.rounds import FINAL
from exporter.optimize.search import is_float
from exporter.steps.contest import Contest
from exporter.steps.execution import Built
from exporter.steps.variants import run_alike
from exporter.values import CandidateResult, Estimate

_CLEAR_LEAD = 1.3
"""A lead over the float in the final that no noise of a second timing takes away."""


def play_off(
    contest: Contest,
    settled: Sequence[CandidateResult],
    built: Mapping[str, Built],
    chosen: Built,
) -> tuple[CandidateResult, ...]:
    """Take the best float after all unless int8 is faster beyond the noise of a second timing.

    A bucket or a batch size that makes int8 faster may do more for a float artifact, which was
    raced in the target's own way; and a busy machine lets either win a final. What certifies int8
    would find both out; it must not be chosen only to fail there.

    Args:
        contest: what they are timed with.
        settled: all candidates, one of them chosen.
        built: recipe name → artifact.
        chosen: the chosen artifact, in the way of running it that was chosen, if one was yet.

    Returns:
        All candidates; another one is chosen where int8 gains too little for what it loses.
    """
    rival = _rival(contest, settled, chosen)
    if rival is None:
        return tuple(settled)
    other = run_alike(contest, built[rival], chosen.variant)
    title = f"play-off: {chosen.name} against {other.name}"
    gain = contest.speedups(contest.time(title, [other, chosen], FINAL))[chosen.name]
    contest.bench.stop(other.name)
    if contest.goal.is_worth_int8(gain):
        return tuple(settled)
    way = f"; both run with {chosen.variant}" if chosen.variant else ""
    name, measured = chosen.recipe.name, _in_words(gain)
    closer = f"in a second timing {name} ran {measured} as fast, too little for what it loses"
    loses = f"{measured} as fast as {rival} in a second timing, which is closer to FP32"
    reasons = {rival: ("chosen", f"{closer}{way}"), name: ("eligible", f"{loses}{way}")}
    return tuple(_changed(result, reasons) for result in settled)


def _rival(contest: Contest, settled: Sequence[CandidateResult], chosen: Built) -> str | None:
    """Name the fastest float but the baseline that keeps the quality, where it may yet win."""
    if contest.goal.objective == "size" or is_float(chosen.recipe):
        return None
    speedups = contest.speedups({one.recipe.name: one.latency for one in settled})
    floats = [
        one.recipe.name
        for one in settled[1:]
        if is_float(one.recipe) and one.status == "eligible" and one.recipe.name in speedups
    ]
    best = max(floats, key=lambda name: speedups[name].value, default=None)
    ours = speedups.get(chosen.recipe.name)
    if best is None or chosen.variant or ours is None:
        return best
    return best if ours.value < _CLEAR_LEAD * speedups[best].value else None


def _in_words(gain: Estimate) -> str:
    return f"{gain.value:.2f}x [{gain.interval.low:.2f}, {gain.interval.high:.2f}]"


def _changed(result: CandidateResult, reasons: Mapping[str, tuple[str, str]]) -> CandidateResult:
    name = result.recipe.name
    if name not in reasons:
        return result
    status, reason = reasons[name]
    return replace(result, status=status, reason=reason)  # type: ignore[arg-type]
