"""The choice: the fastest candidate that keeps the promised quality."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from exporter.values import CandidateResult, Estimate
from targets.contract import Check, Recipe
from targets.errors import ConfigError

HEAT_MARGIN = 0.2
"""How far behind the fastest a candidate of the heat may be and still race on; single rounds
of one artifact were seen to differ by up to 15 % on a shared machine."""

MAX_FINALISTS = 2


def select_recipes(candidates: Sequence[Recipe], precision: str) -> tuple[Recipe, ...]:
    """Return the recipes that take part: all for "auto", else the forced one with company.

    A forced recipe runs beside the FP32 baseline (the ratio's denominator) and, when it
    is int8, beside the best float (int8 that does not beat it is said).

    Raises:
        ConfigError: no candidate of this device has that name.
    """
    baseline = candidates[0]
    if precision == "auto":
        return tuple(candidates)
    by_name = {recipe.name: recipe for recipe in candidates}
    if precision not in by_name:
        raise ConfigError(
            f"--precision {precision}: this device has no such recipe",
            why="it supports: auto, " + ", ".join(by_name),
            hint="take one of those; `exporter targets NAME` says what backs each",
        )
    forced = by_name[precision]
    company = [baseline]
    if forced.precision == "int8":
        company += [recipe for recipe in candidates if is_float(recipe)][1:2]
    return (*(recipe for recipe in company if recipe != forced), forced)


def is_float(recipe: Recipe) -> bool:
    """Say whether nothing of a recipe is int8."""
    return recipe.quantizer == "none"


def quality_reason(checks: Sequence[Check]) -> str | None:
    """Say why a candidate may not be chosen; None: every quality check passed."""
    for check in checks:
        if check.verdict != "pass":
            return _in_words(check)
    return None


def _in_words(check: Check) -> str:
    if check.value is None or check.threshold is None:
        return f"{check.name}: {check.reason or check.verdict}"
    interval = check.interval
    span = f" [{interval.low:.4f}, {interval.high:.4f}]" if interval else ""
    return f"{check.name} {check.value:.4f}{span} against {check.threshold:g}: {check.verdict}"


def choose(
    results: Sequence[CandidateResult],
    speedups: Mapping[str, Estimate],
    forced: str | None,
    out_of_race: Collection[str] = (),
) -> tuple[CandidateResult, ...]:
    """Mark the chosen candidate and say why the others were not.

    Args:
        results: the candidates; "eligible" ones passed every quality check of the
            development split. The first is the FP32 baseline.
        speedups: recipe name → speed-up over FP32 on the real mixes (eligible ones).
        forced: a recipe that the user insists on; it is chosen whatever it measures.
        out_of_race: eligible ones that lost in the heat, whose figures are too few to win on.
    """
    names = [result.recipe.name for result in results if result.status == "eligible"]
    winner = forced or max(
        (name for name in names if name not in out_of_race),
        key=lambda name: speedups[name].value if name in speedups else 1.0,
        default=results[0].recipe.name,
    )
    return tuple(_settled(result, winner, speedups, forced) for result in results)


def _settled(
    result: CandidateResult, winner: str, speedups: Mapping[str, Estimate], forced: str | None
) -> CandidateResult:
    name = result.recipe.name
    if name == winner:
        reason = "asked for" if forced else "fastest that keeps the promised quality"
        return replace(result, status="chosen", reason=reason)
    if result.status != "eligible" or name not in speedups or winner not in speedups:
        return result
    mine, best = speedups[name].value, speedups[winner].value
    return replace(result, reason=f"{mine:.2f}x FP32 on the mixes, {winner} {best:.2f}x")


def finalists(speedups: Mapping[str, Estimate]) -> tuple[str, ...]:
    """Return the candidates of the heat that may yet win, fastest first.

    A candidate is out when even the friendly end of its tolerance stays behind the
    fastest: two rounds give no interval worth the name, so a fixed margin stands for it.
    """
    ranked = sorted(speedups, key=lambda name: -speedups[name].value)
    bar = speedups[ranked[0]].value * (1.0 - HEAT_MARGIN) if ranked else 0.0
    return tuple(name for name in ranked if speedups[name].value >= bar)[:MAX_FINALISTS]
