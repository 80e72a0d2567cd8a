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
    """Build the recipes, judge them one after the other, take the first that keeps the promise.

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
    built, results = _build_all(contest, taking_part, forced)
    running = [result for result in results if forced in (None, result.recipe.name)]
    order = _in_order(contest, [result for result in running if result.recipe.name in built])
    judged = {one.recipe.name: _company(one, forced) for one in results if one not in running}
    chosen: str | None = None
    for result in order:
        name = result.recipe.name
        if chosen is not None:
            reason = f"comes after {chosen} in the order of {_order(contest)}; nothing is timed"
            judged[name] = replace(result, status="dropped", reason=reason)
            continue
        judged[name] = _judge(contest, built[name], result, dev_reference, forced)
        if judged[name].status == "chosen":
            chosen = name
    if chosen is None:  # as in a tournament: what passed nothing is certified, and fails there
        chosen = _first(results, built)
        reason = f"nothing keeps the promised quality; {judged[chosen].reason}"
        judged[chosen] = replace(judged[chosen], status="chosen", reason=reason)
    settled = (judged.get(result.recipe.name, result) for result in results)
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


def _build_all(
    contest: Contest, recipes: Sequence[Recipe], forced: str | None
) -> tuple[dict[str, Built], list[CandidateResult]]:
    built: dict[str, Built] = {}
    with compilers(contest.stand.target.spec.name, contest.stand.build_threads) as compile_:
        # a device may be made for that has no FP32 at all; others run what is certified here
        must_work = {forced} if contest.stand.prepares else {recipes[0].name, forced}
        pieces = [
            partial(build_candidate, contest, recipe, must_work, compile_, built)
            for recipe in recipes
        ]
        return built, side_by_side(pieces, contest.stand.build_threads)


def _in_order(contest: Contest, results: Sequence[CandidateResult]) -> list[CandidateResult]:
    if contest.goal.objective == "size":
        return sorted(results, key=lambda one: one.size_bytes or 0)
    return sorted(results, key=lambda one: is_float(one.recipe))


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
