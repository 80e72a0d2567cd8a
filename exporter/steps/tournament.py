"""Which recipe this device runs: every candidate built, judged on dev, timed beside FP32."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from exporter.judge import Policy, assess, judge_fidelity, mean_speedup, stability_from, summarize
from exporter.optimize.rounds import FINAL, HEAT, Protocol
from exporter.optimize.search import (
    HEAT_MARGIN,
    choose,
    finalists,
    is_float,
    quality_reason,
    select_recipes,
)
from exporter.optimize.workloads import (
    HEAT_TEXTS,
    MIX_TEXTS,
    mix_workloads,
    spread_by_length,
)
from exporter.steps.compilers import compilers, side_by_side
from exporter.steps.execution import Bench, Built, Stand, build_artifact
from exporter.steps.texts import Texts, TokenizedEvaluation
from exporter.steps.workspace import Workspace
from exporter.values import (
    CandidateResult,
    Estimate,
    EvaluationEmbeddings,
    Fidelity,
    Latency,
    Stability,
)
from targets.contract import (
    ALONE,
    Batching,
    FloatArray,
    OnnxArtifact,
    Recipe,
    TokenSequences,
    Workload,
)
from targets.errors import CompileError, DeviceError, NonFiniteError
from targets.hardware.precisions import is_backed

DEV_STABILITY_TEXTS = 8
TEST_STABILITY_TEXTS = 48
SLOWER_THAN_FP32 = 0.85
"""A candidate this much slower than FP32 in the heat cannot win (see `HEAT_MARGIN`)."""

_WAYS: Mapping[str, Batching] = {
    "alone": ALONE,
    "batched": Batching(),
    # as loaders pad: to any length, where runtimes may take other kernels
    "padded": Batching(length_multiple=1, extra_padding=5),
    "shuffled": Batching(sort=False, max_batch=8),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the tournament came to: candidates with reasons, and what is there to certify."""

    candidates: tuple[CandidateResult, ...]
    chosen: Built
    baseline: Built
    best_float: Built


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """What all candidates of one target are measured with."""

    work: Workspace
    stand: Stand
    bench: Bench
    graph: OnnxArtifact
    texts: Texts
    policy: Policy


def mixes_of(
    evaluation: TokenizedEvaluation, num_texts: int = MIX_TEXTS
) -> tuple[Workload, Workload]:
    """Return the real mixes: queries one by one, documents in bulk."""
    requests = evaluation.queries if len(evaluation.queries) else evaluation.documents
    return mix_workloads(requests, evaluation.documents, num_texts)


def stability_of(
    contest: Contest, built: Built, tokens: TokenSequences, num_texts: int
) -> Stability:
    """Embed the same texts alone, batched, padded and in another order, and compare.

    Another order means other batch mates, which is what dynamic quantization depends on.
    """
    sample = spread_by_length(tokens, num_texts)
    rows: Mapping[str, FloatArray] = contest.bench.embed_in_company(built, sample, _WAYS)
    return stability_from(rows["alone"], rows["batched"], rows["padded"], rows["shuffled"])


def hold_tournament(
    contest: Contest, recipes: Sequence[Recipe], dev_reference: EvaluationEmbeddings | None
) -> Outcome:
    """Build the recipes, let them race, judge those that may win, and choose.

    A candidate that cannot be built or run is dropped with its reason; only the FP32
    baseline and a forced recipe must work.

    Raises:
        CompileError, DeviceError, NonFiniteError: of the baseline or of a forced recipe.
        ConfigError: the forced recipe does not exist on this device.
    """
    precision = contest.work.settings.precision
    forced = None if precision == "auto" else precision
    unbacked = [] if forced else [r for r in recipes if not is_backed(r, contest.stand.hardware)]
    taking_part = select_recipes([r for r in recipes if r not in unbacked], precision)
    baseline = taking_part[0].name
    must_work = {baseline, forced}
    built, results = _build_all(contest, taking_part, must_work)
    heat = _heat(contest, results, built)
    results = _judge_all(contest, results, built, heat, dev_reference, must_work)
    final = {} if forced else _final(contest, results, built, heat)
    timed = heat | final
    speedups = _speedups(timed, baseline)
    results = [replace(r, latency=timed.get(r.recipe.name, ())) for r in results]
    results += [_not_backed(recipe) for recipe in unbacked]
    settled = choose(results, speedups, forced, set(heat) - set(final) - {baseline})
    winner = next(result for result in settled if result.status == "chosen")
    return Outcome(
        candidates=settled,
        chosen=built[winner.recipe.name],
        baseline=built[baseline],
        best_float=built[_best_float(settled, speedups)],
    )


def _build_all(
    contest: Contest, recipes: Sequence[Recipe], must_work: Collection[str | None]
) -> tuple[dict[str, Built], list[CandidateResult]]:
    """Compile the recipes side by side."""
    stand = contest.stand
    built: dict[str, Built] = {}
    with compilers(stand.target.spec.name, stand.num_threads) as compile_:

        def enter(recipe: Recipe) -> CandidateResult:
            try:
                made = build_artifact(
                    contest.work, stand, contest.graph, contest.texts.calibration, recipe, compile_
                )
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

        results = side_by_side([partial(enter, r) for r in recipes], stand.num_threads)
    return built, results


def _not_backed(recipe: Recipe) -> CandidateResult:
    needed = " or ".join(recipe.requires)
    reason = f"nothing here accelerates it (it needs {needed}); --precision {recipe.name} forces it"
    return CandidateResult(recipe=recipe, status="dropped", reason=reason)


def _heat(
    contest: Contest, results: Sequence[CandidateResult], built: Mapping[str, Built]
) -> dict[str, tuple[Latency, ...]]:
    """Time every candidate that runs beside FP32, a few rounds each."""
    baseline = results[0].recipe.name
    running = [r.recipe.name for r in results[1:] if r.recipe.name in built]
    if not running:
        return {}
    return _timed(contest, "heat: time all candidates in turns", baseline, running, built, HEAT)


def _judge_all(
    contest: Contest,
    results: Sequence[CandidateResult],
    built: Mapping[str, Built],
    heat: Mapping[str, tuple[Latency, ...]],
    reference: EvaluationEmbeddings | None,
    must_work: Collection[str | None],
) -> list[CandidateResult]:
    """Judge candidates on the development split, fastest first, those that may yet win."""
    speeds = {name: speedup.value for name, speedup in _speedups(heat, "").items()}
    judged: dict[str, CandidateResult] = {}
    to_beat, leader = SLOWER_THAN_FP32, "FP32"
    for result in sorted(results, key=lambda r: -speeds.get(r.recipe.name, 0.0)):
        name = result.recipe.name
        speed = speeds.get(name, 0.0)
        judging = reference is not None and result.status != "failed"
        if judging and name not in must_work and 0.0 < speed < to_beat:
            contest.bench.stop(name)
            reason = f"{speed:.2f}x FP32 in the heat: cannot win against {leader}, not judged"
            judged[name] = replace(result, status="dropped", reason=reason)
            continue
        judged[name] = _judged(contest, result, built, reference, name in must_work)
        bar = speed * (1.0 - HEAT_MARGIN)
        if judged[name].status == "eligible" and bar > to_beat:
            to_beat, leader = bar, f"{name} ({speed:.2f}x)"
    return [judged[result.recipe.name] for result in results]


def _judged(
    contest: Contest,
    result: CandidateResult,
    built: Mapping[str, Built],
    reference: EvaluationEmbeddings | None,
    must_work: bool,
) -> CandidateResult:
    """Judge one candidate; what it raises drops it, unless it must work."""
    name = result.recipe.name
    if result.status == "failed":
        return result
    try:
        judged = _judge_on_dev(contest, built[name], result, reference)
    except (DeviceError, NonFiniteError) as error:
        contest.bench.stop(name)
        if must_work:
            raise
        return replace(result, status="failed", reason=str(error))
    if judged.status == "dropped":
        contest.bench.stop(name)
    return judged


def _judge_on_dev(
    contest: Contest,
    built: Built,
    result: CandidateResult,
    reference: EvaluationEmbeddings | None,
) -> CandidateResult:
    """Judge on the development split; without one (a forced recipe) nothing is judged yet."""
    dev = contest.texts.dev
    if dev is None or reference is None:
        return replace(result, reason="not judged here: one recipe was asked for")
    fidelity = fidelity_of(contest, built, dev, reference, DEV_STABILITY_TEXTS)
    checks = judge_fidelity(fidelity, contest.policy)
    why = quality_reason(checks)
    return replace(
        result,
        status="eligible" if why is None else "dropped",
        reason=why or "keeps the promised quality",
        fidelity=fidelity,
        checks=checks,
    )


def fidelity_of(
    contest: Contest,
    built: Built,
    evaluation: TokenizedEvaluation,
    reference: EvaluationEmbeddings,
    stability_texts: int,
) -> Fidelity:
    """Embed an evaluation set on the device and compare it with FP32's embeddings."""
    embedded = contest.bench.embed(built, evaluation)
    return assess(
        evaluation.texts,
        reference,
        embedded,
        lengths=(evaluation.queries.lengths, evaluation.documents.lengths),
        k=contest.policy.k,
        stability=stability_of(contest, built, evaluation.documents, stability_texts),
        seed=contest.work.settings.seed,
    )


def _final(
    contest: Contest,
    results: Sequence[CandidateResult],
    built: Mapping[str, Built],
    heat: Mapping[str, tuple[Latency, ...]],
) -> dict[str, tuple[Latency, ...]]:
    """Time the fastest of those that keep the promised quality once more, beside FP32."""
    baseline = results[0].recipe.name
    eligible = [r.recipe.name for r in results[1:] if r.status == "eligible"]
    in_final = finalists(
        _speedups({name: heat[name] for name in eligible if name in heat}, baseline)
    )
    for name in set(eligible) - set(in_final):
        contest.bench.stop(name)
    if len(in_final) < 2:  # nobody to tell apart; the one there is gets the full protocol
        return {name: heat[name] for name in in_final}
    return _timed(contest, "final: time the fastest in turns", baseline, in_final, built, FINAL)


def _timed(
    contest: Contest,
    title: str,
    baseline: str,
    names: Sequence[str],
    built: Mapping[str, Built],
    protocol: Protocol,
) -> dict[str, tuple[Latency, ...]]:
    evaluation = contest.texts.dev or contest.texts.test
    contenders = [built[name] for name in (baseline, *names)]
    series = contest.bench.time(title, contenders, mixes_of(evaluation, HEAT_TEXTS), protocol)
    return {
        name: tuple(summarize(one, name, baseline) for one in series)
        for name in series[0].samples_ms
    }


def _speedups(timed: Mapping[str, Sequence[Latency]], baseline: str) -> dict[str, Estimate]:
    found = {name: mean_speedup(latency) for name, latency in timed.items() if name != baseline}
    return {name: estimate for name, estimate in found.items() if estimate is not None}


def _best_float(results: Sequence[CandidateResult], speedups: Mapping[str, Estimate]) -> str:
    floats = [r.recipe.name for r in results if is_float(r.recipe) and r.status != "failed"]
    return max(floats, key=lambda name: speedups[name].value if name in speedups else 1.0)
