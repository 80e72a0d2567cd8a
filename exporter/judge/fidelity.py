"""The whole comparison of a candidate's embeddings with FP32's on one evaluation set."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from exporter.judge.drift import (
    HISTOGRAM_EDGES,
    BoolArray,
    Float64Array,
    cosines,
    drift_histogram,
)
from exporter.judge.intervals import allow_for_unseen, mean_estimates, quantile_estimate
from exporter.judge.labels import compare_pairs, compare_rankings, score_ranking
from exporter.judge.moved import worst_texts
from exporter.judge.neighbours import nearest, overlap_at_k, supports_overlap
from exporter.values import (
    Estimate,
    EvaluationEmbeddings,
    EvaluationSet,
    Fidelity,
    LabelMetric,
    LengthSlice,
    Stability,
)
from targets.contract import IntArray
from targets.errors import StepError

# The worst text of the worst int8 recipe measured on all-MiniLM-L6-v2 (static U8S8 MinMax)
# kept a cosine of 0.749. Texts that the sample does not show may be as bad.
UNSEEN_COSINE = 0.75
SLICE_EDGES = (0, 16, 32, 64, 128, 256)


def assess(
    evaluation: EvaluationSet,
    reference: EvaluationEmbeddings,
    candidate: EvaluationEmbeddings,
    *,
    lengths: tuple[IntArray, IntArray],
    k: int = 10,
    stability: Stability | None = None,
    seed: int = 0,
) -> Fidelity:
    """Compare a candidate's embeddings with FP32's on one evaluation set.

    The texts of the figures are queries and documents together. Overlap@k is over the
    queries; in similarity pairs and plain texts, which have none, every document is a
    query against the others. Neighbours are by cosine. Overlap is None where there are
    fewer than 2k documents to choose from. Intervals of means allow for what a sample of
    this size may have missed (`intervals.allow_for_unseen`).

    Args:
        evaluation: the texts and their labels.
        reference: FP32 embeddings, rows in the set's order.
        candidate: the candidate's embeddings of queries AND documents, same rows.
        lengths: tokens of the queries and of the documents, shapes [num_queries] and
            [num_documents].
        k: neighbours per query.
        stability: what `stability_from` found; None where it was not measured.
        seed: seed of every resampling.

    Raises:
        ShapeMismatchError: if embeddings differ in shape.
        NonFiniteError: if a row has NaN, infinity or zero norm.
        StepError: if there are no texts, or embeddings or lengths do not match the texts.
    """
    _require_matching_rows(evaluation, reference, lengths)
    row_cosines = _row_cosines(reference, candidate)
    num_tokens = np.concatenate(lengths)
    overlaps = _overlaps(evaluation, reference, candidate, k)
    rankings = _rankings(evaluation, reference, candidate, k)
    mean, p1 = _cosine_estimates(row_cosines, seed)
    return Fidelity(
        evaluation=evaluation.name,
        split=evaluation.split,
        num_texts=len(row_cosines),
        num_queries=len(evaluation.queries or evaluation.documents),
        k=k,
        mean_cosine=mean,
        p1_cosine=p1,
        min_cosine=float(row_cosines.min()),
        overlap_at_k=None if overlaps is None else overlap_estimate(overlaps, seed),
        labels=_label_metrics(evaluation, reference, candidate, rankings, seed),
        stability=stability,
        slices=_slices(row_cosines, num_tokens, overlaps, _recalls(evaluation, rankings)),
        worst=worst_texts(evaluation, reference, candidate, row_cosines, num_tokens, k),
        histogram_edges=HISTOGRAM_EDGES,
        histogram_counts=drift_histogram(row_cosines),
    )


def _row_cosines(reference: EvaluationEmbeddings, candidate: EvaluationEmbeddings) -> Float64Array:
    of_queries = cosines(
        reference.queries,
        candidate.queries,
        reference_name="reference queries",
        candidate_name="candidate queries",
    )
    of_documents = cosines(
        reference.documents,
        candidate.documents,
        reference_name="reference documents",
        candidate_name="candidate documents",
    )
    return np.concatenate([of_queries, of_documents])


def _cosine_estimates(row_cosines: Float64Array, seed: int) -> tuple[Estimate, Estimate]:
    (mean,) = mean_estimates(row_cosines[:, None], seed)
    worst = min(UNSEEN_COSINE, float(row_cosines.min()))
    p1 = quantile_estimate(row_cosines, 0.01, lowest=-1.0, highest=1.0)
    return allow_for_unseen(mean, worst=worst, best=1.0), p1


def overlap_estimate(overlaps: Float64Array, seed: int) -> Estimate:
    """Return the mean share of neighbours kept, shape [num_queries], with its interval."""
    (mean,) = mean_estimates(overlaps[:, None], seed)
    return allow_for_unseen(mean, worst=0.0, best=1.0)


def _overlaps(
    evaluation: EvaluationSet,
    reference: EvaluationEmbeddings,
    candidate: EvaluationEmbeddings,
    k: int,
) -> Float64Array | None:
    among_themselves = not evaluation.queries
    if not supports_overlap(len(reference.documents), k, exclude_self=among_themselves):
        return None
    return overlap_at_k(
        reference.documents if among_themselves else reference.queries,
        reference.documents,
        candidate.documents if among_themselves else candidate.queries,
        candidate.documents,
        k,
        exclude_self=among_themselves,
    )


def _rankings(
    evaluation: EvaluationSet,
    reference: EvaluationEmbeddings,
    candidate: EvaluationEmbeddings,
    k: int,
) -> tuple[IntArray, IntArray] | None:
    """Rank the documents by FP32 and by the candidate, where there are labels to score that."""
    if not evaluation.judgements:
        return None
    depth = min(k, len(reference.documents))
    before, after = (
        nearest(embedded.queries, embedded.documents, depth) for embedded in (reference, candidate)
    )
    return before, after


def _label_metrics(
    evaluation: EvaluationSet,
    reference: EvaluationEmbeddings,
    candidate: EvaluationEmbeddings,
    rankings: tuple[IntArray, IntArray] | None,
    seed: int,
) -> tuple[LabelMetric, ...]:
    if evaluation.pairs is not None:
        return compare_pairs(reference.documents, candidate.documents, evaluation.pairs, seed)
    if rankings is None or not evaluation.judgements:
        return ()
    return compare_rankings(*rankings, evaluation.judgements, seed)


# ------------------------------------------------------------------------------ by length


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recalls:
    """Recall on labels of the judged queries, FP32 beside the candidate, shape [num_judged]."""

    query: IntArray
    reference: Float64Array
    candidate: Float64Array


def _recalls(
    evaluation: EvaluationSet, rankings: tuple[IntArray, IntArray] | None
) -> _Recalls | None:
    if rankings is None or not evaluation.judgements:
        return None
    before, after = (score_ranking(ranking, evaluation.judgements) for ranking in rankings)
    return _Recalls(query=before.query, reference=before.recall, candidate=after.recall)


def _slices(
    row_cosines: Float64Array,
    num_tokens: IntArray,
    overlaps: Float64Array | None,
    recalls: _Recalls | None,
) -> tuple[LengthSlice, ...]:
    # The last slice ends behind the longest text, because infinity is no number of tokens.
    end = max(SLICE_EDGES[-1], int(num_tokens.max())) + 1
    found = []
    for low, high in pairwise((*SLICE_EDGES, end)):
        inside = (num_tokens >= low) & (num_tokens < high)
        if inside.any():
            found.append(_slice(low, high, row_cosines, inside, overlaps, recalls))
    return tuple(found)


def _slice(
    low: int,
    high: int,
    row_cosines: Float64Array,
    inside: BoolArray,
    overlaps: Float64Array | None,
    recalls: _Recalls | None,
) -> LengthSlice:
    # Queries come first; in sets without queries, overlaps are the documents' own.
    kept = None if overlaps is None else overlaps[inside[: len(overlaps)]]
    judged = None if recalls is None else inside[recalls.query]
    return LengthSlice(
        low=low,
        high=high,
        num_texts=int(inside.sum()),
        mean_cosine=float(row_cosines[inside].mean()),
        min_cosine=float(row_cosines[inside].min()),
        overlap_at_k=_mean(kept),
        reference_recall=_mean(recalls.reference[judged]) if recalls else None,
        recall=_mean(recalls.candidate[judged]) if recalls else None,
    )


def _mean(values: Float64Array | None) -> float | None:
    return float(values.mean()) if values is not None and len(values) else None


def _require_matching_rows(
    evaluation: EvaluationSet, reference: EvaluationEmbeddings, lengths: tuple[IntArray, IntArray]
) -> None:
    if not evaluation.documents:
        raise StepError(
            f"evaluation set {evaluation.name!r} has no documents",
            hint="give an evaluation set with at least one text",
        )
    sides = (
        ("queries", evaluation.queries, reference.queries, lengths[0]),
        ("documents", evaluation.documents, reference.documents, lengths[1]),
    )
    for side, texts, embedded, num_tokens in sides:
        if not len(texts) == len(embedded) == len(num_tokens):
            raise StepError(
                f"evaluation set {evaluation.name!r}: {len(texts)} {side}, "
                f"but {len(embedded)} embeddings and {len(num_tokens)} token counts",
                why="embeddings, token counts and texts belong to different sets",
                hint="embed this evaluation set again",
            )
