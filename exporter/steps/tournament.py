"""The tournament: candidates are built, raced beside FP32, judged on dev, and one is chosen."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

from exporter.optimize.budget import SearchBudget
from exporter.optimize.pareto import mark_front
from exporter.optimize.rounds import FINAL, HEAT
from exporter.optimize.search import (
    always_tried,
    by_promise,
    choose,
    entrant_of,
    is_float,
    select_recipes,
)
from exporter.optimize.workloads import HEAT_TEXTS
from exporter.steps.building import Ingredients, build_artifact
from exporter.steps.compilers import Compile, compilers, side_by_side
from exporter.steps.contest import Contest, Outcome
from exporter.steps.execution import Built
from exporter.steps.judging import Candidates, judge_all
from exporter.steps.play_off import play_off
from exporter.steps.variants import Tuned, run_alike, tune
from exporter.values import CandidateResult, Estimate, EvaluationEmbeddings, Latency
from targets.contract import Recipe
from targets.errors import CompileError
from targets.hardware.precisions import is_backed

Timed = Mapping[str, tuple[Latency, ...]]
"""Recipe name → latencies, speed-ups over FP32 in the same rounds."""


def hold_tournament(
    contest: Contest, recipes: Sequence[Recipe], dev_reference: EvaluationEmbeddings | None
) -> Outcome:
    """Build the recipes, let them race, judge those that may win, choose, and tune the choice.

    A candidate that cannot be built or run is dropped with its reason; only the FP32
    baseline and a forced recipe must work. A search budget that is spent drops what is left,
    but for the baseline and the most promising int8 recipe.

    Raises:
        CompileError, DeviceError, NonFiniteError: of the baseline or of a forced recipe.
        ConfigError: the forced recipe does not exist on this device.
    """
    return _hold(contest, recipes, dev_reference, contest.budget())


def _hold(
    contest: Contest,
    recipes: Sequence[Recipe],
    dev_reference: EvaluationEmbeddings | None,
    budget: SearchBudget,
) -> Outcome:
    precision = contest.work.settings.precision
    forced = None if precision == "auto" else precision
    unbacked = [] if forced else [r for r in recipes if not is_backed(r, contest.stand.hardware)]
    taking_part = select_recipes([r for r in recipes if r not in unbacked], precision)
    baseline = taking_part[0].name
    must_work = {baseline, forced}
    spared = always_tried(taking_part) if forced is None else {r.name for r in taking_part}
    built, results = _build_all(contest, taking_part, must_work, spared, budget)
    heat = _heat(contest, results, built)
    candidates = Candidates(
        built=built,
        speedups=contest.speedups(heat),
        must_work=must_work,
        always_tried=spared,
        budget=budget,
    )
    results = judge_all(contest, results, candidates, dev_reference)
    if contest.quantization.superseded and _static_lose_too_much(results):
        everything = contest.quantization.with_superseded()
        again = replace(contest, quantization=everything)
        return _hold(again, everything.recipes, dev_reference, budget)
    final = {} if forced else _final(contest, results, built, heat)
    unbuilt = [*map(not_backed, unbacked), *map(_superseded, contest.quantization.superseded)]
    settled = _settle(contest, [*results, *unbuilt], heat, final, forced)
    if forced:
        return _outcome(contest, settled, built, Tuned(built=built[forced]))
    settled = play_off(contest, settled, built, built[_winner(settled)])
    tuned = tune(contest, built[_winner(settled)], budget)
    if tuned.built.variant:
        settled = play_off(contest, settled, built, tuned.built)
    if _winner(settled) != tuned.built.recipe.name:
        tuned = tune(contest, built[_winner(settled)], budget)
    return _outcome(contest, settled, built, tuned)


def _winner(results: Sequence[CandidateResult]) -> str:
    return next(result.recipe.name for result in results if result.status == "chosen")


def _build_all(
    contest: Contest,
    recipes: Sequence[Recipe],
    must_work: Collection[str | None],
    spared: Collection[str],
    budget: SearchBudget,
) -> tuple[dict[str, Built], list[CandidateResult]]:
    """Compile the recipes side by side, the most promising first, while the budget lasts.

    Returns:
        Artifacts by the recipe's name, and all results in the order of `recipes`.
    """
    built: dict[str, Built] = {}
    name, threads = contest.stand.target.spec.name, contest.stand.build_threads
    with contest.turns.here(), compilers(name, threads) as compile_:

        def enter(recipe: Recipe) -> CandidateResult:
            refusal = None if recipe.name in spared else budget.refusal()
            if refusal is not None:
                return CandidateResult(recipe=recipe, status="dropped", reason=refusal)
            return build_candidate(contest, recipe, must_work, compile_, built)

        in_order = by_promise(recipes)
        results = side_by_side([partial(enter, r) for r in in_order], threads)
    by_name = {result.recipe.name: result for result in results}
    return built, [by_name[recipe.name] for recipe in recipes]


def build_candidate(
    contest: Contest,
    recipe: Recipe,
    must_work: Collection[str | None],
    compile_: Compile,
    built: dict[str, Built],
) -> CandidateResult:
    """Compile one recipe into `built`; what fails is dropped, unless it must work.

    Raises:
        CompileError: of what must work.
    """
    ingredients = Ingredients(
        graph=contest.graph,
        calibration=contest.texts.calibration,
        plans=contest.quantization.plans_of(recipe),
        source=contest.source,
    )
    try:
        made = build_artifact(contest.work, contest.stand, ingredients, recipe, compile_)
    except CompileError as error:
        if recipe.name in must_work:
            raise
        return CandidateResult(recipe=recipe, status="failed", reason=str(error))
    built[recipe.name] = made
    return CandidateResult(
        recipe=recipe,
        status="eligible",
        reason="was built",
        size_bytes=made.artifact.size_bytes,
        compile_s=made.artifact.compile_s,
    )


def not_backed(recipe: Recipe) -> CandidateResult:
    """Say why a recipe that this hardware does not accelerate is not tried."""
    needed = " or ".join(recipe.requires)
    reason = f"nothing here accelerates it (it needs {needed}); --precision {recipe.name} forces it"
    return CandidateResult(recipe=recipe, status="dropped", reason=reason)


def _static_lose_too_much(results: Sequence[CandidateResult]) -> bool:
    """Say whether static recipes were built or judged in vain, and none keeps the quality."""
    static = [one for one in results if one.recipe.quantizer == "qdq"]
    in_vain = [one for one in static if one.status == "failed" or one.checks]
    return bool(in_vain) and all(one.status != "eligible" for one in static)


def _superseded(recipe: Recipe) -> CandidateResult:
    reason = "not built: the static recipes do the same work as fast, and lose less; "
    reason += f"--precision {recipe.name} forces it"
    return CandidateResult(recipe=recipe, status="dropped", reason=reason)


def _heat(
    contest: Contest, results: Sequence[CandidateResult], built: Mapping[str, Built]
) -> Timed:
    """Time every candidate that runs beside FP32, a few rounds each."""
    running = [built[r.recipe.name] for r in results if r.recipe.name in built]
    if len(running) < 2:
        return {}
    return contest.time("heat: time all candidates in turns", running, HEAT, HEAT_TEXTS)


def _final(
    contest: Contest,
    results: Sequence[CandidateResult],
    built: Mapping[str, Built],
    heat: Timed,
) -> Timed:
    """Time the best of those that keep the promised quality once more, beside FP32."""
    speedups = contest.speedups(heat)
    eligible = [r for r in results[1:] if r.status == "eligible"]
    in_final = contest.goal.finalists(
        [entrant_of(r, speedups) for r in eligible if r.recipe.name in speedups]
    )
    for name in {r.recipe.name for r in eligible} - set(in_final):
        contest.bench.stop(name)
    if len(in_final) < 2:  # nobody to tell apart; the one there is gets the full protocol
        return {name: heat[name] for name in in_final}
    contenders = [built[name] for name in (results[0].recipe.name, *in_final)]
    return contest.time("final: time the fastest in turns", contenders, FINAL)


def _settle(
    contest: Contest,
    results: Sequence[CandidateResult],
    heat: Timed,
    final: Timed,
    forced: str | None,
) -> tuple[CandidateResult, ...]:
    """Choose, and say of each candidate why not, how fast it was, and whether on the front."""
    timed = {**heat, **final}
    speedups = contest.speedups(timed)
    baseline = results[0].recipe.name
    against_baseline = {name: one for name, one in speedups.items() if name != baseline}
    results = [replace(r, latency=timed.get(r.recipe.name, ())) for r in results]
    lost = set(heat) - set(final) - {baseline}
    settled = choose(results, against_baseline, forced, lost, contest.goal)
    return mark_front(settled, {name: one.value for name, one in speedups.items()})


def _outcome(
    contest: Contest,
    settled: tuple[CandidateResult, ...],
    built: Mapping[str, Built],
    tuned: Tuned,
) -> Outcome:
    """Run baseline and best float as the chosen artifact is run: a fair comparison."""
    chosen = tuned.built
    if chosen.variant:
        for name in built:  # from here on all run in the other way
            contest.bench.stop(name)

    def alike(name: str) -> Built:
        if name == chosen.recipe.name:
            return chosen
        return run_alike(contest, built[name], chosen.variant)

    baseline = settled[0].recipe.name
    float_name = _best_float(settled, contest.speedups({r.recipe.name: r.latency for r in settled}))
    floats = alike(baseline)
    return Outcome(
        candidates=settled,
        chosen=chosen,
        baseline=floats,
        best_float=floats if float_name == baseline else alike(float_name),
        variants=tuned.results,
    )


def _best_float(results: Sequence[CandidateResult], speedups: Mapping[str, Estimate]) -> str:
    floats = [r.recipe.name for r in results if is_float(r.recipe) and r.latency]
    known = [name for name in floats if name in speedups]
    return max(known, key=lambda name: speedups[name].value, default=results[0].recipe.name)
