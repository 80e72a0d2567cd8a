"""Fidelity and size against the policy, and what all checks together come to."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

from exporter.judge.fidelity import UNSEEN_COSINE
from exporter.judge.gate import gate, gate_point, not_run
from exporter.judge.intervals import allow_for_unseen, samples_to_see
from exporter.judge.labels import recall_name
from exporter.judge.policy import Policy
from exporter.values import Estimate, Fidelity, LabelMetric
from targets.contract import Check, Interval, Verdict
from targets.errors import ExitCode, NonFiniteError, StepError

FINITE = "finite"
MEAN_COSINE = "mean_cosine"
P1_COSINE = "p1_cosine"
STABILITY = "stability"
SIZE = "size"

_WORST_FIRST: tuple[Verdict, ...] = ("fail", "inconclusive", "not_run")


def overlap_name(k: int) -> str:
    """Return the name of the overlap check, e.g. "overlap@10"."""
    return f"overlap@{k}"


def judge_fidelity(fidelity: Fidelity, policy: Policy) -> tuple[Check, ...]:
    """Judge a candidate's closeness to FP32, one check per promise of the policy.

    Raises:
        StepError: if overlap was taken at another k than the policy asks for.
    """
    if fidelity.k != policy.k:
        raise StepError(
            f"overlap was taken at k = {fidelity.k}, the policy asks for k = {policy.k}",
            hint="assess the embeddings again with the policy's k",
        )
    checks = [_judge_mean(fidelity, policy), _judge_p1(fidelity, policy)]
    checks += [_judge_overlap(fidelity, policy), _judge_stability(fidelity, policy)]
    if policy.require_finite:
        checks.insert(0, _judge_finite(fidelity))
    if policy.min_recall is not None:
        checks.append(_judge_recall(fidelity, policy.k, policy.min_recall))
    return tuple(checks)


def judge_non_finite(error: NonFiniteError) -> Check:
    """Turn embeddings that could not be compared into a failed check."""
    reason = f"{error.what}: {error.why}" if error.why else error.what
    return Check(name=FINITE, verdict="fail", value=0.0, threshold=1.0, reason=reason)


def judge_size(size_bytes: int, policy: Policy) -> tuple[Check, ...]:
    """Judge the artifact's size; no check where the policy sets no limit."""
    limit = policy.max_size_bytes
    if limit is None:
        return ()
    fits = size_bytes <= limit
    return (
        Check(
            name=SIZE,
            verdict="pass" if fits else "fail",
            value=float(size_bytes),
            threshold=float(limit),
            unit="bytes",
            reason="" if fits else f"{size_bytes} bytes are more than {limit}",
        ),
    )


def combine(checks: Iterable[Check], harmless: Collection[str] = ()) -> Verdict:
    """Return the worst verdict of all checks.

    Args:
        checks: none at all is `not_run`: what nobody judged is no pass.
        harmless: names of checks that may be `not_run` without taking the pass away,
            e.g. latency between unlike devices.
    """
    verdicts = [
        check.verdict
        for check in checks
        if not (check.verdict == "not_run" and check.name in harmless)
    ]
    if not verdicts:
        return "not_run"
    return next((verdict for verdict in _WORST_FIRST if verdict in verdicts), "pass")


def exit_code(verdict: Verdict) -> ExitCode:
    """Return the exit code that says this verdict."""
    if verdict == "pass":
        return ExitCode.PASS
    return ExitCode.GATE_FAILED if verdict == "fail" else ExitCode.INCONCLUSIVE


def _judge_finite(fidelity: Fidelity) -> Check:
    figures = (fidelity.mean_cosine.value, fidelity.p1_cosine.value, fidelity.min_cosine)
    finite = all(math.isfinite(figure) for figure in figures)
    return gate_point(FINITE, float(finite), 1.0, why="embeddings have NaN or infinity")


def _judge_mean(fidelity: Fidelity, policy: Policy) -> Check:
    return gate(
        MEAN_COSINE,
        fidelity.mean_cosine,
        policy.min_mean_cosine,
        samples="texts",
        unseen=min(UNSEEN_COSINE, fidelity.min_cosine),
    )


def _judge_p1(fidelity: Fidelity, policy: Policy) -> Check:
    return gate(
        P1_COSINE,
        fidelity.p1_cosine,
        policy.min_p1_cosine,
        samples="texts",
        min_samples=samples_to_see(0.01),
    )


def _judge_overlap(fidelity: Fidelity, policy: Policy) -> Check:
    name, threshold = overlap_name(policy.k), policy.min_overlap_at_k
    if fidelity.overlap_at_k is None:
        reason = f"fewer than {2 * policy.k} documents to find {policy.k} neighbours among"
        return not_run(name, threshold, reason)
    return gate(name, fidelity.overlap_at_k, threshold, samples="queries", unseen=0.0)


def _judge_stability(fidelity: Fidelity, policy: Policy) -> Check:
    stability, threshold = fidelity.stability, policy.min_stability
    if stability is None:
        return not_run(STABILITY, threshold, "embeddings in other company were not taken")
    cosine_in = {
        "a batch": stability.alone_vs_batched,
        "a padded batch": stability.padded,
        "another order": stability.shuffled,
    }
    culprit = min(cosine_in, key=cosine_in.__getitem__)
    why = f"a text embedded in {culprit} differs from itself alone (cosine {stability.minimum:.5f})"
    return gate_point(STABILITY, stability.minimum, threshold, why=why)


def _judge_recall(fidelity: Fidelity, k: int, threshold: float) -> Check:
    name = recall_name(k)
    metric = next((metric for metric in fidelity.labels if metric.name == name), None)
    if metric is None:
        return not_run(name, threshold, "the evaluation set has no relevance labels")
    if metric.reference <= 0.0:
        return not_run(name, threshold, "FP32 itself finds none of the relevant documents")
    kept = _share_kept(metric)
    unit = "of FP32's"
    return gate(name, kept, threshold, samples="queries", unit=unit, unseen=0.0)


def _share_kept(metric: LabelMetric) -> Estimate:
    difference, scale = metric.difference, metric.reference
    kept = Estimate(
        value=1.0 + difference.value / scale,
        interval=Interval(
            low=1.0 + difference.interval.low / scale,
            high=1.0 + difference.interval.high / scale,
        ),
        num_samples=difference.num_samples,
    )
    return allow_for_unseen(kept, worst=0.0, best=1.0 / scale)
