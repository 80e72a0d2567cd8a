"""Metrics on relevance labels and on scored pairs, as trec_eval and STS define them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from exporter.judge.drift import Float64Array, cosines
from exporter.judge.intervals import mean_estimates, percentile_interval, resample_counts
from exporter.values import Estimate, Judgements, LabelMetric, ScoredPairs
from targets.contract import FloatArray, IntArray

_MIN_PAIRS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingScores:
    """Per-query metrics of one ranking; queries without a judgement are left out.

    Args:
        query: indices of the judged queries, ascending, shape [num_judged].
        recall: found relevant documents / relevant documents, same shape, in [0, 1].
        ndcg: normalized discounted cumulative gain, same shape, in [0, 1].
        mrr: 1 / rank of the first relevant document, 0 if none was found, same shape.
    """

    query: IntArray
    recall: Float64Array
    ndcg: Float64Array
    mrr: Float64Array


def score_ranking(ranking: IntArray, judgements: Judgements) -> RankingScores:
    """Score the top k of every query against its judgements.

    nDCG takes the gain as it stands, discounted by log2(rank + 1), as trec_eval
    (m_ndcg_cut.c) and so BEIR do; not 2^gain - 1.

    Args:
        ranking: document indices, best first, shape [num_queries, k].
        judgements: each (query, document) at most once.
    """
    query, position = np.unique(judgements.query, return_inverse=True)
    gains = _found_gains(ranking[query], query, judgements)
    discounts = 1.0 / np.log2(np.arange(2, ranking.shape[1] + 2))
    num_relevant = np.bincount(position, minlength=len(query))
    ideal = _ideal_dcg(position, judgements.gain, discounts)
    return RankingScores(
        query=query,
        recall=(gains > 0).sum(axis=1) / num_relevant,
        ndcg=gains @ discounts / ideal,
        mrr=_reciprocal_ranks(gains > 0),
    )


def compare_rankings(
    reference: IntArray, candidate: IntArray, judgements: Judgements, seed: int
) -> tuple[LabelMetric, ...]:
    """Compare two rankings by recall@k, nDCG@k and MRR@k, paired by query.

    Args:
        reference: FP32's top k, shape [num_queries, k].
        candidate: the candidate's top k, same shape.
        judgements: at least one.
        seed: seed of the paired bootstrap.
    """
    k = reference.shape[1]
    ours, theirs = score_ranking(reference, judgements), score_ranking(candidate, judgements)
    before = np.stack([ours.recall, ours.ndcg, ours.mrr], axis=1)
    after = np.stack([theirs.recall, theirs.ndcg, theirs.mrr], axis=1)
    names = (recall_name(k), f"ndcg@{k}", f"mrr@{k}")
    differences = mean_estimates(after - before, seed)
    return tuple(
        LabelMetric(name=name, reference=float(old), candidate=float(new), difference=difference)
        for name, old, new, difference in zip(
            names, before.mean(axis=0), after.mean(axis=0), differences, strict=True
        )
    )


def recall_name(k: int) -> str:
    """Return the name under which recall on labels is reported."""
    return f"recall@{k}"


def compare_pairs(
    reference: FloatArray, candidate: FloatArray, pairs: ScoredPairs, seed: int
) -> tuple[LabelMetric, ...]:
    """Compare Spearman's correlation of cosine and human score, paired by text pair.

    Args:
        reference: FP32 embeddings of the documents, shape [num_documents, dim].
        candidate: the candidate's, same shape.
        pairs: indices into the documents and their scores.
        seed: seed of the paired bootstrap.

    Returns:
        One metric, or none where there are fewer than three pairs.
    """
    num_pairs = len(pairs.score)
    if num_pairs < _MIN_PAIRS:
        return ()
    score = np.asarray(pairs.score, np.float64)
    ours = cosines(reference[pairs.first], reference[pairs.second])
    theirs = cosines(candidate[pairs.first], candidate[pairs.second])
    once = np.ones((1, num_pairs))
    before, after = (float(spearman(once, cosine, score)[0]) for cosine in (ours, theirs))
    resampled = np.concatenate(
        [
            spearman(counts, theirs, score) - spearman(counts, ours, score)
            for counts in resample_counts(num_pairs, seed)
        ]
    )
    difference = Estimate(
        value=after - before,
        interval=percentile_interval(resampled, num_pairs),
        num_samples=num_pairs,
    )
    return (LabelMetric(name="spearman", reference=before, candidate=after, difference=difference),)


def spearman(counts: Float64Array, x: Float64Array, y: Float64Array) -> Float64Array:
    """Return Spearman's rank correlation of many weighted samples at once.

    Ranks with ties averaged come from cumulated counts, so no resample is sorted.

    Args:
        counts: how often each sample occurs, shape [rows, n], every row sums to n.
        x: shape [n].
        y: shape [n].

    Returns:
        shape [rows]; 0 where x or y does not vary.
    """
    middle = (x.size + 1) / 2
    ranks_x, ranks_y = _midranks(counts, x) - middle, _midranks(counts, y) - middle
    covariance = np.einsum("rn,rn,rn->r", counts, ranks_x, ranks_y)
    spread = np.sqrt(
        np.einsum("rn,rn,rn->r", counts, ranks_x, ranks_x)
        * np.einsum("rn,rn,rn->r", counts, ranks_y, ranks_y)
    )
    correlation: Float64Array = np.divide(
        covariance, spread, out=np.zeros_like(covariance), where=spread > 0
    )
    return correlation


def _midranks(counts: Float64Array, values: Float64Array) -> Float64Array:
    _, starts, group = np.unique(np.sort(values), return_index=True, return_inverse=True)
    order = np.argsort(values, kind="stable")
    group_of = np.empty_like(group)
    group_of[order] = group
    sizes = np.add.reduceat(counts[:, order], starts, axis=1)
    middles = np.cumsum(sizes, axis=1) - (sizes - 1) / 2
    midranks: Float64Array = middles[:, group_of]
    return midranks


def _found_gains(ranking: IntArray, query: IntArray, judgements: Judgements) -> Float64Array:
    stride = int(max(ranking.max(initial=0), judgements.document.max(initial=0))) + 1
    judged = judgements.query * stride + judgements.document
    order = np.argsort(judged)
    wanted = query[:, None] * stride + ranking
    place = np.minimum(np.searchsorted(judged[order], wanted), len(judged) - 1)
    hit = judged[order][place] == wanted
    return np.where(hit, judgements.gain[order][place], 0.0).astype(np.float64)


def _ideal_dcg(position: IntArray, gain: FloatArray, discounts: Float64Array) -> Float64Array:
    order = np.lexsort((-gain, position))
    sorted_position = position[order]
    first = np.searchsorted(sorted_position, sorted_position)
    rank = np.arange(len(order)) - first
    listed = rank < len(discounts)
    weights = gain[order][listed] * discounts[rank[listed]]
    ideal: Float64Array = np.bincount(sorted_position[listed], weights).astype(np.float64)
    return ideal


def _reciprocal_ranks(hits: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> Float64Array:
    first = hits.argmax(axis=1)
    return np.where(hits.any(axis=1), 1.0 / (first + 1), 0.0)
