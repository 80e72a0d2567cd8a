"""The choice where no time can be taken (emulation): by promise or size, by nobody's clock.

Which kernels an instruction set has, the hardware table says; how fast they are there, nobody
measured, and nothing here pretends so. Candidates are judged on the development split on this
machine, which runs the same graphs with its own kernels; the chosen one is then certified on the
device's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from exporter.judge import judge_fidelity, judge_size
from exporter.optimize.search import is_float, quality_reason, select_recipes
from exporter.steps.compilers import compilers, side_by_side
from exporter.steps.contest import Contest, Outcome, fidelity_of
from exporter.steps.execution import Built
from exporter.steps.tournament import build_candidate, not_backed
from exporter.values import CandidateResult, EvaluationEmbeddings
from targets.contract import Recipe
from targets.errors import CompileError, DeviceError, NonFiniteError
from targets.hardware.precisions import is_backed

_STABILITY_TEXTS = 8


def choose_untimed(
    contest: Contest,
    recipes: Sequence[Recipe],
    dev_reference: EvaluationEmbeddings | None,
) -> Outcome:
    """Judge the recipes one after the other, and take the first that keeps the promise.

    Int8 recipes come in the target's order of promise, or the smallest first where size is the
    goal; float ones last.

    Args:
        contest: with this machine's bench.
        recipes: the target's candidates for the device.
        dev_reference: FP32's embeddings of the development split.

    Raises:
        CompileError: of a forced recipe, or of the FP32 baseline.
        ConfigError: the forced recipe does not exist on this device.
    """
    precision = contest.work.settings.precision
    forced = None if precision == "auto" else precision
    unbacked = [] if forced else [r for r in recipes if not is_backed(r, contest.stand.hardware)]
    recipes = [recipe for recipe in recipes if recipe not in unbacked]
    taking_part = select_recipes(recipes, precision)
    if not contest.stand.prepares:  # nobody will ever time the company of a forced recipe
        taking_part = tuple(r for r in taking_part if forced in (None, r.name))
    built, results = _build_and_judge(contest, taking_part, dev_reference, forced)
    chosen = next((n for n, one in results.items() if one.status == "chosen"), None)
    if chosen is None:  # as in a tournament: what passed nothing is certified, and fails there
        chosen = _first([results[recipe.name] for recipe in taking_part], built)
        reason = f"nothing keeps the promised quality; {results[chosen].reason}"
        results[chosen] = replace(results[chosen], status="chosen", reason=reason)
    settled = (results[recipe.name] for recipe in taking_part)
    candidates = (*settled, *map(not_backed, unbacked))
    baseline = built.get(taking_part[0].name, built[chosen])
    return Outcome(
        candidates=candidates,
        chosen=built[chosen],
        baseline=baseline,
        best_float=_best_float(taking_part, built, baseline),
    )


def _first(results: Sequence[CandidateResult], built: Mapping[str, Built]) -> str:
    """Return the first that was built, FP32 where it was.

    Raises:
        CompileError: none was.
    """
    names = [result.recipe.name for result in results if result.recipe.name in built]
    if not names:
        raise CompileError(
            "no recipe can be built for this device",
            why="; ".join(f"{one.recipe.name}: {one.reason}" for one in results),
        )
    return names[0]


def _company(result: CandidateResult, forced: str | None) -> CandidateResult:
    """Say why something was built that nobody asked for."""
    if result.status == "failed":
        return result
    reason = f"not judged here: the device times it beside {forced}"
    return replace(result, status="dropped", reason=reason)


def _best_float(recipes: Sequence[Recipe], built: Mapping[str, Built], baseline: Built) -> Built:
    """Return the most promising float but for FP32, which int8 will have to be faster than."""
    names = [recipe.name for recipe in recipes if is_float(recipe)]
    found = [built[name] for name in names if name in built]
    return next((one for one in found if one is not baseline), baseline)


def _build_and_judge(
    contest: Contest,
    recipes: Sequence[Recipe],
    reference: EvaluationEmbeddings | None,
    forced: str | None,
) -> tuple[dict[str, Built], dict[str, CandidateResult]]:
    """Build and judge in order until one is chosen; what comes later is not built.

    FP32 and the floats that int8 will be timed beside are always built, and everything where the
    order is that of sizes.
    """
    built: dict[str, Built] = {}
    judged: dict[str, CandidateResult] = {}
    # a device may be made for that has no FP32 at all; others run what is certified here
    must_work = {forced} if contest.stand.prepares else {recipes[0].name, forced}
    int8 = [recipe for recipe in recipes if not is_float(recipe)]
    waiting = int8[1:] if forced is None and contest.goal.objective != "size" else []
    num_threads = contest.stand.build_threads
    with compilers(contest.stand.target.spec.name, num_threads) as compile_:

        def build(recipe: Recipe) -> CandidateResult:
            return build_candidate(contest, recipe, must_work, compile_, built)

        at_once = [recipe for recipe in recipes if recipe not in waiting]
        made = side_by_side([partial(build, recipe) for recipe in at_once], num_threads)
        results = {result.recipe.name: result for result in made}
        chosen: str | None = None
        for recipe in _in_order(contest, recipes, results):
            name = recipe.name
            if forced not in (None, name):
                judged[name] = _company(results[name], forced)
            elif chosen is not None:
                judged[name] = _comes_after(contest, chosen, recipe, results.get(name))
            else:
                result = results[name] if name in results else build(recipe)
                if name in built:
                    result = _judge(contest, built[name], result, reference, forced)
                judged[name] = result
                chosen = name if result.status == "chosen" else None
    return built, judged


def _in_order(
    contest: Contest, recipes: Sequence[Recipe], results: Mapping[str, CandidateResult]
) -> list[Recipe]:
    if contest.goal.objective == "size":
        return sorted(recipes, key=lambda one: results[one.name].size_bytes or 0)
    return sorted(recipes, key=is_float)


def _comes_after(
    contest: Contest, chosen: str, recipe: Recipe, result: CandidateResult | None
) -> CandidateResult:
    """Say why a recipe is not looked at; what cannot be built says so."""
    reason = f"comes after {chosen} in the order of {_order(contest)}; nothing is timed"
    if result is None:
        reason += f", so it was not built; --precision {recipe.name} builds it"
        return CandidateResult(recipe=recipe, status="dropped", reason=reason)
    if result.status == "failed":
        return result
    return replace(result, status="dropped", reason=reason)


def _order(contest: Contest) -> str:
    return "size" if contest.goal.objective == "size" else "promise"


def _praise(contest: Contest) -> str:
    order = _order(contest)
    return (
        f"first in the order of {order} that keeps the promised quality, by this machine's kernels"
    )


def _judge(
    contest: Contest,
    built: Built,
    result: CandidateResult,
    reference: EvaluationEmbeddings | None,
    forced: str | None,
) -> CandidateResult:
    """Judge one candidate on this machine; the first that passes is chosen."""
    if forced is not None:
        return replace(result, status="chosen", reason="asked for")
    dev = contest.texts.dev
    checks = judge_size(built.artifact.size_bytes, contest.policy)
    too_large = quality_reason(checks)
    if too_large is not None or dev is None or reference is None:
        return replace(result, status="dropped", reason=too_large or "not judged", checks=checks)
    try:
        fidelity = fidelity_of(contest, built, dev, reference, _STABILITY_TEXTS)
    except (DeviceError, NonFiniteError) as error:
        return replace(result, status="failed", reason=str(error))
    finally:
        contest.bench.stop(built.name)
    checks = (*checks, *judge_fidelity(fidelity, contest.policy))
    why = quality_reason(checks)
    return replace(
        result,
        status="chosen" if why is None else "dropped",
        reason=why or _praise(contest),
        fidelity=fidelity,
        checks=checks,
    )
