"""Candidates on the development split: the most promising first, those that may yet win."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from exporter.judge import judge_fidelity, judge_size
from exporter.optimize.budget import SearchBudget
from exporter.optimize.goal import Entrant
from exporter.optimize.search import entrant_of, quality_reason
from exporter.steps.contest import Contest, fidelity_of
from exporter.steps.execution import Built
from exporter.values import CandidateResult, Estimate, EvaluationEmbeddings
from targets.errors import DeviceError, NonFiniteError

_STABILITY_TEXTS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """What was built, how fast it ran in the heat, and what must be treated with care.

    Args:
        built: recipe name → artifact, where there is one.
        speedups: recipe name → speed-up over FP32 in the heat, where it ran.
        must_work: the baseline and a forced recipe: what they raise ends the run.
        always_tried: what no budget leaves out.
        budget: what the search may spend.
    """

    built: Mapping[str, Built]
    speedups: Mapping[str, Estimate]
    must_work: Collection[str | None]
    always_tried: Collection[str]
    budget: SearchBudget


def judge_all(
    contest: Contest,
    results: Sequence[CandidateResult],
    candidates: Candidates,
    reference: EvaluationEmbeddings | None,
) -> list[CandidateResult]:
    """Judge candidates in the order of the goal, as long as they may win and time is left.

    Args:
        contest: what they are measured with.
        results: in the target's order, which is that of the answer.
        candidates: what there is to judge.
        reference: FP32's embeddings of the development split; None: nothing is judged, since
            one recipe was asked for.

    Raises:
        DeviceError, NonFiniteError: of what must work.
    """
    goal = contest.goal
    judged: dict[str, CandidateResult] = {}
    leader: Entrant | None = None
    for entrant in goal.ranked([entrant_of(r, candidates.speedups, 0.0) for r in results]):
        result = next(r for r in results if r.recipe.name == entrant.name)
        refusal = _refusal(contest, entrant, leader, candidates) if reference is not None else None
        if entrant.name not in candidates.built:
            judged[entrant.name] = result
        elif refusal is not None:
            contest.bench.stop(entrant.name)
            judged[entrant.name] = replace(result, status="dropped", reason=refusal)
        else:
            judged[entrant.name] = _judged(contest, result, candidates, reference)
            if judged[entrant.name].status == "eligible":
                leader = goal.leader(entrant, leader)
    return [judged[result.recipe.name] for result in results]


def _refusal(
    contest: Contest, entrant: Entrant, leader: Entrant | None, candidates: Candidates
) -> str | None:
    """Say why a candidate is not judged; None: it is."""
    if entrant.name in candidates.must_work:
        return None
    beaten = contest.goal.why_beaten(entrant, leader)
    if beaten is not None or entrant.name in candidates.always_tried:
        return beaten
    return candidates.budget.refusal()


def _judged(
    contest: Contest,
    result: CandidateResult,
    candidates: Candidates,
    reference: EvaluationEmbeddings | None,
) -> CandidateResult:
    """Judge one candidate; what it raises drops it, unless it must work."""
    name = result.recipe.name
    try:
        judged = _judge_on_dev(contest, candidates.built[name], result, reference)
    except (DeviceError, NonFiniteError) as error:
        contest.bench.stop(name)
        if name in candidates.must_work:
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
    """Judge size and fidelity; without a development split (a forced recipe) neither."""
    dev = contest.texts.dev
    if dev is None or reference is None:
        return replace(result, reason="not judged here: one recipe was asked for")
    checks = judge_size(built.artifact.size_bytes, contest.policy)
    too_large = quality_reason(checks)
    if too_large is not None:  # known without embedding a single text
        return replace(result, status="dropped", reason=too_large, checks=checks)
    fidelity = fidelity_of(contest, built, dev, reference, _STABILITY_TEXTS)
    checks = (*checks, *judge_fidelity(fidelity, contest.policy))
    why = quality_reason(checks)
    return replace(
        result,
        status="eligible" if why is None else "dropped",
        reason=why or "keeps the promised quality",
        fidelity=fidelity,
        checks=checks,
    )
