from __future__ import annotations

import numpy as np
import pytest
from judge_sets import clustered, noisy, retrieval_embeddings, retrieval_set
from scipy.stats import spearmanr
from sklearn.metrics import ndcg_score

from exporter.judge.intervals import resample_counts
from exporter.judge.labels import compare_pairs, compare_rankings, score_ranking, spearman
from exporter.judge.neighbours import nearest
from exporter.values import Judgements, ScoredPairs


def judgements(*triples: tuple[int, int, float]) -> Judgements:
    query, document, gain = zip(*triples, strict=True)
    return Judgements(
        query=np.array(query), document=np.array(document), gain=np.array(gain, np.float32)
    )


def test_metrics_computed_by_hand():
    ranking = np.array([[5, 7, 2], [0, 1, 2], [9, 8, 6]])
    labels = judgements((0, 2, 1), (0, 4, 1), (1, 0, 1), (2, 3, 1))
    found = score_ranking(ranking, labels)
    np.testing.assert_array_equal(found.query, [0, 1, 2])
    np.testing.assert_allclose(found.recall, [1 / 2, 1, 0])
    np.testing.assert_allclose(found.mrr, [1 / 3, 1, 0])
    # rank 3 is worth 1 / log2(4); the ideal has both relevant documents at ranks 1 and 2
    np.testing.assert_allclose(found.ndcg, [0.5 / (1 + 1 / np.log2(3)), 1, 0])


def test_gain_is_linear_not_exponential():
    found = score_ranking(np.array([[0, 1]]), judgements((0, 0, 1), (0, 1, 3)))
    ideal = 3 + 1 / np.log2(3)
    assert found.ndcg[0] == pytest.approx((1 + 3 / np.log2(3)) / ideal)


def test_queries_without_judgements_are_left_out():
    ranking = np.array([[0, 1], [0, 1], [1, 0]])
    found = score_ranking(ranking, judgements((2, 0, 1)))
    np.testing.assert_array_equal(found.query, [2])
    np.testing.assert_allclose(found.mrr, [0.5])


def test_ndcg_agrees_with_sklearn():
    rng = np.random.default_rng(0)
    num_queries, num_documents = 40, 60
    gains = rng.integers(0, 4, (num_queries, num_documents)) * (
        rng.random((num_queries, num_documents)) < 0.2
    )
    gains[:, 0] = 1
    scores = rng.permuted(np.tile(np.arange(num_documents), (num_queries, 1)), axis=1)
    query, document = np.nonzero(gains)
    labels = Judgements(
        query=query, document=document, gain=gains[query, document].astype(np.float32)
    )
    found = score_ranking(np.argsort(-scores, axis=1)[:, :10], labels)
    assert found.ndcg.mean() == pytest.approx(ndcg_score(gains, scores, k=10))


def test_a_ranking_compared_with_itself_does_not_differ():
    evaluation = retrieval_set(60, 200)
    embedded = retrieval_embeddings(evaluation)
    ranking = nearest(embedded.queries, embedded.documents, 10)
    for metric in compare_rankings(ranking, ranking, evaluation.judgements, seed=0):
        assert metric.reference == metric.candidate
        assert metric.difference.value == 0.0
        assert metric.difference.interval.low == metric.difference.interval.high == 0.0


def test_a_worse_ranking_is_worse_by_more_than_chance():
    evaluation = retrieval_set(200, 300)
    embedded = retrieval_embeddings(evaluation)
    ranking = nearest(embedded.queries, embedded.documents, 10)
    scrambled = np.random.default_rng(0).permutation(300)[ranking]
    metrics = compare_rankings(ranking, scrambled, evaluation.judgements, seed=0)
    assert [metric.name for metric in metrics] == ["recall@10", "ndcg@10", "mrr@10"]
    for metric in metrics:
        assert metric.difference.value == pytest.approx(metric.candidate - metric.reference)
        assert metric.difference.interval.high < 0
        assert metric.difference.num_samples == 200


def test_spearman_of_resamples_agrees_with_scipy():
    rng = np.random.default_rng(1)
    x, y = np.round(rng.normal(size=50), 1), rng.normal(size=50)
    y += x
    (counts,) = resample_counts(50, seed=2, num_resamples=20)
    for row, found in zip(counts, spearman(counts, x, y), strict=True):
        drawn = np.repeat(np.arange(50), row.astype(int))
        assert found == pytest.approx(spearmanr(x[drawn], y[drawn]).statistic, abs=1e-12)


def test_pairs_agree_with_scipy_and_see_damage():
    rng = np.random.default_rng(0)
    rows = clustered(300)
    first, second = rng.integers(0, 300, (2, 400))
    cosine = np.einsum("ij,ij->i", rows[first], rows[second])
    score = (cosine + 0.3 * rng.normal(size=400)).astype(np.float32)
    pairs = ScoredPairs(first=first, second=second, score=score)
    (same,) = compare_pairs(rows, rows, pairs, seed=0)
    assert same.reference == pytest.approx(spearmanr(cosine, score).statistic, abs=1e-6)
    assert same.difference.value == 0.0
    (damaged,) = compare_pairs(rows, noisy(rows, 1.0), pairs, seed=0)
    assert damaged.candidate < damaged.reference
    assert damaged.difference.interval.high < 0


def test_scores_that_do_not_vary_say_nothing():
    rows = clustered(20)
    pairs = ScoredPairs(
        first=np.arange(10), second=np.arange(10) + 10, score=np.ones(10, np.float32)
    )
    (metric,) = compare_pairs(rows, rows, pairs, seed=0)
    assert metric.reference == metric.candidate == 0.0


def test_two_pairs_are_too_few():
    rows = clustered(20)
    pairs = ScoredPairs(first=np.arange(2), second=np.arange(2) + 2, score=np.ones(2, np.float32))
    assert compare_pairs(rows, rows, pairs, seed=0) == ()
