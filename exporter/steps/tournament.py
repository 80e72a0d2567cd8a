"""Which recipe this device runs: every candidate built, judged on dev, timed beside FP32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from exporter.judge import Policy, assess, judge_fidelity, mean_speedup, stability_from, summarize
from exporter.optimize.rounds import FINAL, HEAT, Protocol
from exporter.optimize.search import choose, finalists, is_float, quality_reason, select_recipes
from exporter.optimize.workloads import (
    HEAT_TEXTS,
    MIX_TEXTS,
    mix_workloads,
    spread_by_length,
)
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

DEV_STABILITY_TEXTS = 16
TEST_STABILITY_TEXTS = 48
_WAYS: Mapping[str, Batching] = {
    "alone": ALONE,
    "batched": Batching(),
    "padded": Batching(extra_padding=32),
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
    """Build, judge and time the recipes, and choose.

    A candidate that cannot be built or run is dropped with its reason; only the FP32
    baseline and a forced recipe must work.

    Raises:
        CompileError, DeviceError, NonFiniteError: of the baseline or of a forced recipe.
        ConfigError: the forced recipe does not exist on this device.
    """
    precision = contest.work.settings.precision
    forced = None if precision == "auto" else precision
    taking_part = select_recipes(recipes, precision)
    built: dict[str, Built] = {}
    results = []
    for recipe in taking_part:
        must_work = recipe in (taking_part[0], taking_part[-1] if forced else None)
        results.append(_enter(contest, recipe, dev_reference, built, must_work=must_work))
    results, speedups = _race(contest, results, built)
    settled = choose(results, speedups, forced)
    winner = next(result for result in settled if result.status == "chosen")
    return Outcome(
        candidates=settled,
        chosen=built[winner.recipe.name],
        baseline=built[taking_part[0].name],
        best_float=built[_best_float(settled, speedups)],
    )


def _enter(
    contest: Contest,
    recipe: Recipe,
    reference: EvaluationEmbeddings | None,
    built: dict[str, Built],
    *,
    must_work: bool,
) -> CandidateResult:
    try:
        made = build_artifact(
            contest.work, contest.stand, contest.graph, contest.texts.calibration, recipe
        )
        result = _judge_on_dev(contest, made, reference)
    except (CompileError, DeviceError, NonFiniteError) as error:
        contest.bench.stop(recipe.name)
        if must_work:
            raise
        return CandidateResult(recipe=recipe, status="failed", reason=str(error))
    built[recipe.name] = made
    if result.status == "dropped":
        contest.bench.stop(recipe.name)
    return replace(result, size_bytes=made.artifact.size_bytes, compile_s=made.artifact.compile_s)


def _judge_on_dev(
    contest: Contest, built: Built, reference: EvaluationEmbeddings | None
) -> CandidateResult:
    """Judge on the development split; without one (a forced recipe) nothing is judged yet."""
    dev = contest.texts.dev
    if dev is None or reference is None:
        return CandidateResult(recipe=built.recipe, status="eligible", reason="not judged: forced")
    fidelity = fidelity_of(contest, built, dev, reference, DEV_STABILITY_TEXTS)
    checks = judge_fidelity(fidelity, contest.policy)
    why = quality_reason(checks)
    return CandidateResult(
        recipe=built.recipe,
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


def _race(
    contest: Contest, results: Sequence[CandidateResult], built: Mapping[str, Built]
) -> tuple[list[CandidateResult], dict[str, Estimate]]:
    """Time the eligible candidates beside FP32: a heat for all, a final for the fastest."""
    baseline = results[0].recipe.name
    running = [r.recipe.name for r in results if r.status == "eligible" and r != results[0]]
    if not running:
        return list(results), {}
    timed = _timed(contest, "heat: time all candidates in turns", baseline, running, built, HEAT)
    in_final = finalists(_speedups(timed, baseline))
    for name in set(running) - set(in_final):
        contest.bench.stop(name)
    timed |= _timed(contest, "final: time the fastest in turns", baseline, in_final, built, FINAL)
    return [replace(r, latency=timed.get(r.recipe.name, ())) for r in results], _speedups(
        timed, baseline
    )


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
        name: tuple(summarize(one, name, baseline) for one in series) for name in (baseline, *names)
    }


def _speedups(timed: Mapping[str, Sequence[Latency]], baseline: str) -> dict[str, Estimate]:
    found = {name: mean_speedup(latency) for name, latency in timed.items() if name != baseline}
    return {name: estimate for name, estimate in found.items() if estimate is not None}


def _best_float(results: Sequence[CandidateResult], speedups: Mapping[str, Estimate]) -> str:
    floats = [r.recipe.name for r in results if is_float(r.recipe) and r.status != "failed"]
    return max(floats, key=lambda name: speedups[name].value if name in speedups else 1.0)
