"""The choice: who takes part, and who of those that keep the promised quality is taken."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from exporter.optimize.goal import Entrant, Goal
from exporter.optimize.pareto import closeness_of
from exporter.values import CandidateResult, Estimate
from targets.contract import Check, Recipe
from targets.errors import ConfigError

_BALANCED = Goal()


def select_recipes(candidates: Sequence[Recipe], precision: str) -> tuple[Recipe, ...]:
    """Return the recipes that take part: all for "auto", else the forced one with company.

    A forced recipe runs beside the FP32 baseline (the ratio's denominator) and, when it
    is int8 or float8, beside the best float (one that does not beat it is said).

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
    if forced.precision in ("int8", "float8"):
        company += [recipe for recipe in candidates if is_float(recipe)][1:2]
    return (*(recipe for recipe in company if recipe != forced), forced)


def is_float(recipe: Recipe) -> bool:
    """Say whether nothing of a recipe is int8."""
    return recipe.quantizer == "none"


def always_tried(recipes: Sequence[Recipe]) -> frozenset[str]:
    """Name the recipes that no budget leaves out: the baseline and the best-placed int8 one.

    Args:
        recipes: in the target's order, which is the order of promise.
    """
    int8 = [recipe for recipe in recipes if not is_float(recipe)]
    return frozenset(recipe.name for recipe in (*recipes[:1], *int8[:1]))


def by_promise(recipes: Sequence[Recipe]) -> list[Recipe]:
    """Put those first that are always tried, the others behind them in the target's order."""
    first = always_tried(recipes)
    return sorted(recipes, key=lambda recipe: recipe.name not in first)


def quality_reason(checks: Sequence[Check]) -> str | None:
    """Say why a candidate may not be chosen; None: every quality check passed."""
    for check in checks:
        if check.verdict != "pass":
            return _in_words(check)
    return None


def _in_words(check: Check) -> str:
    if check.value is None or check.threshold is None or check.unit == "bytes":
        return f"{check.name}: {check.reason or check.verdict}"
    interval = check.interval
    span = f" [{interval.low:.4f}, {interval.high:.4f}]" if interval else ""
    return f"{check.name} {check.value:.4f}{span} against {check.threshold:g}: {check.verdict}"


def choose(
    results: Sequence[CandidateResult],
    speedups: Mapping[str, Estimate],
    forced: str | None,
    out_of_race: Collection[str] = (),
    goal: Goal = _BALANCED,
) -> tuple[CandidateResult, ...]:
    """Mark the chosen candidate and say why the others were not.

    Args:
        results: the candidates; "eligible" ones passed every quality check of the
            development split. The first is the FP32 baseline.
        speedups: recipe name → speed-up over FP32 on the mixes that decide (eligible ones).
        forced: a recipe that the user insists on; it is chosen whatever it measures.
        out_of_race: eligible ones that lost in the heat, whose figures are too few to win on.
        goal: what the choice is for.
    """
    eligible = [result for result in results if result.status == "eligible"]
    in_race = [one for one in eligible if one.recipe.name not in out_of_race]
    racing = [entrant_of(result, speedups) for result in in_race]
    winner = forced or (goal.winner(racing).name if racing else results[0].recipe.name)
    praise = "asked for" if forced else goal.praise_of(winner, racing)
    best = next(result for result in results if result.recipe.name == winner)
    return tuple(_settled(result, best, speedups, praise, goal) for result in results)


def entrant_of(
    result: CandidateResult, speedups: Mapping[str, Estimate], unknown: float = 1.0
) -> Entrant:
    """Return a candidate as the race sees it; `unknown` stands for a missing speed-up."""
    name = result.recipe.name
    return Entrant(
        name=name,
        speedup=speedups[name].value if name in speedups else unknown,
        size_bytes=result.size_bytes or 0,
        closeness=closeness_of(result.fidelity),
        is_float=is_float(result.recipe),
    )


def _settled(
    result: CandidateResult,
    winner: CandidateResult,
    speedups: Mapping[str, Estimate],
    praise: str,
    goal: Goal,
) -> CandidateResult:
    name = result.recipe.name
    if result is winner:
        return replace(result, status="chosen", reason=praise)
    if result.status != "eligible" or name not in speedups or winner.recipe.name not in speedups:
        return result
    reason = goal.comparison(entrant_of(result, speedups), entrant_of(winner, speedups))
    return replace(result, reason=reason)
