"""Int8 against the best float once more, both run in the way that was chosen for int8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from exporter.optimize.rounds import FINAL
from exporter.optimize.search import entrant_of, is_float
from exporter.steps.contest import Contest
from exporter.steps.execution import Built
from exporter.steps.variants import Tuned, run_alike
from exporter.values import CandidateResult


def play_off(
    contest: Contest,
    settled: Sequence[CandidateResult],
    built: Mapping[str, Built],
    tuned: Tuned,
) -> tuple[CandidateResult, ...]:
    """Take the best float after all where int8 owes its lead to the way of running it.

    A bucket or a batch size that makes int8 faster may do more for a float artifact, which was
    raced in the target's own way. What certifies int8 would find that out; it must not be
    chosen only to fail there.

    Args:
        contest: what they are timed with.
        settled: all candidates, one of them chosen.
        built: recipe name → artifact.
        tuned: the chosen artifact in the way of running it that was chosen.

    Returns:
        All candidates; another one is chosen where the float won.
    """
    chosen = tuned.built
    rival = _best_float(contest, settled)
    if is_float(chosen.recipe) or not chosen.variant or rival is None:
        return tuple(settled)
    baseline, other = (
        run_alike(contest, built[name], chosen.variant)
        for name in (settled[0].recipe.name, rival.recipe.name)
    )
    title = f"play-off: {chosen.name} against {other.name}"
    timed = contest.time(title, [baseline, chosen, other], FINAL)
    contest.bench.stop(other.name)
    by_way = contest.speedups(timed)
    speedups = {one.recipe.name: by_way[one.name] for one in (chosen, other)}
    ours = next(result for result in settled if result.status == "chosen")
    entrants = [entrant_of(result, speedups) for result in (ours, rival)]
    winner = contest.goal.winner(entrants)
    if winner.name == chosen.recipe.name:
        return tuple(settled)
    way = f"both run with {chosen.variant}"
    reasons = {
        rival.recipe.name: ("chosen", f"{contest.goal.praise_of(winner.name, entrants)} ({way})"),
        chosen.recipe.name: ("eligible", contest.goal.comparison(entrants[0], winner) + f"; {way}"),
    }
    return tuple(_changed(result, reasons) for result in settled)


def _best_float(contest: Contest, settled: Sequence[CandidateResult]) -> CandidateResult | None:
    """Return the fastest float but the baseline that keeps the promised quality."""
    if contest.goal.objective == "size":
        return None
    speedups = contest.speedups({one.recipe.name: one.latency for one in settled})
    floats = [
        one
        for one in settled[1:]
        if is_float(one.recipe) and one.status == "eligible" and one.recipe.name in speedups
    ]
    return max(floats, key=lambda one: speedups[one.recipe.name].value, default=None)


def _changed(result: CandidateResult, reasons: Mapping[str, tuple[str, str]]) -> CandidateResult:
    name = result.recipe.name
    if name not in reasons:
        return result
    status, reason = reasons[name]
    return replace(result, status=status, reason=reason)  # type: ignore[arg-type]
