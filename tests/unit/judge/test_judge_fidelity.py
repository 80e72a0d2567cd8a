from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from judge_sets import (
    STABLE,
    clustered,
    lengths_of,
    moved,
    retrieval_embeddings,
    retrieval_set,
    text_set,
)

from exporter.judge.fidelity import SLICE_EDGES, UNSEEN_COSINE, assess
from exporter.judge.intervals import unseen_share
from exporter.judge.neighbours import overlap_at_k
from exporter.values import EvaluationEmbeddings, ScoredPairs
from targets.errors import NonFiniteError, StepError

NO_QUERIES = np.zeros((0, 32), np.float32)


@pytest.fixture(scope="module")
def retrieval():
    evaluation = retrieval_set(300, 400)
    return evaluation, retrieval_embeddings(evaluation), lengths_of(evaluation)


def test_identical_embeddings_are_perfect(retrieval):
    evaluation, reference, lengths = retrieval
    found = assess(evaluation, reference, reference, lengths=lengths, stability=STABLE)
    assert found.mean_cosine.value == pytest.approx(1.0, abs=1e-12)
    assert found.min_cosine == pytest.approx(1.0, abs=1e-12)
    assert found.overlap_at_k.value == 1.0
    assert found.overlap_at_k.interval.low == pytest.approx(1 - unseen_share(300))
    assert found.stability is STABLE
    assert (found.num_texts, found.num_queries, found.k) == (700, 300, 10)
    assert all(metric.difference.value == 0.0 for metric in found.labels)


def test_figures_are_those_of_the_texts(retrieval):
    evaluation, reference, lengths = retrieval
    candidate = moved(reference, 0.15)
    found = assess(evaluation, reference, candidate, lengths=lengths)
    rows = np.concatenate([reference.queries, reference.documents]).astype(float)
    others = np.concatenate([candidate.queries, candidate.documents]).astype(float)
    cosine = (rows * others).sum(axis=1)
    cosine /= np.linalg.norm(rows, axis=1) * np.linalg.norm(others, axis=1)
    assert found.mean_cosine.value == pytest.approx(cosine.mean())
    assert found.min_cosine == pytest.approx(cosine.min())
    assert found.p1_cosine.value == pytest.approx(np.sort(cosine)[6])
    assert sum(found.histogram_counts) == 700
    overlaps = overlap_at_k(
        reference.queries, reference.documents, candidate.queries, candidate.documents, 10
    )
    assert found.overlap_at_k.value == pytest.approx(overlaps.mean())
    assert found.overlap_at_k.num_samples == 300


def test_only_the_documents_damaged_lowers_the_overlap(retrieval):
    evaluation, reference, lengths = retrieval
    candidate = replace(moved(reference, 0.3), queries=reference.queries)
    assert assess(evaluation, reference, candidate, lengths=lengths).overlap_at_k.value < 0.95


def test_slices_hold_every_text_once(retrieval):
    evaluation, reference, lengths = retrieval
    found = assess(evaluation, reference, moved(reference, 0.1), lengths=lengths)
    assert sum(part.num_texts for part in found.slices) == 700
    assert [part.low for part in found.slices] == list(SLICE_EDGES)
    assert all(a.high == b.low for a, b in zip(found.slices, found.slices[1:], strict=False))
    assert found.slices[-1].high == lengths[1].max() + 1
    assert found.slices[0].overlap_at_k is not None
    assert found.slices[-1].overlap_at_k is None, "no query is that long"


def test_empty_slices_are_left_out(retrieval):
    evaluation, reference, _ = retrieval
    lengths = (np.full(300, 5), np.full(400, 70))
    found = assess(evaluation, reference, reference, lengths=lengths)
    assert [(part.low, part.high, part.num_texts) for part in found.slices] == [
        (0, 16, 300),
        (64, 128, 400),
    ]


def test_a_slice_shows_which_length_is_damaged(retrieval):
    evaluation, reference, _ = retrieval
    lengths = (np.full(300, 5), np.where(np.arange(400) < 40, 300, 20))
    documents = reference.documents.copy()
    documents[:40] = clustered(40, seed=99)
    found = assess(evaluation, reference, replace(reference, documents=documents), lengths=lengths)
    assert found.slices[-1].mean_cosine < 0.5 < 0.99 < found.slices[1].mean_cosine


def test_the_worst_texts_are_named_and_cut(retrieval):
    evaluation, reference, lengths = retrieval
    documents = reference.documents.copy()
    documents[123] = -documents[123]
    found = assess(evaluation, reference, replace(reference, documents=documents), lengths=lengths)
    assert len(found.worst) == 10
    assert found.worst[0].text == evaluation.documents[123][:200]
    assert len(found.worst[0].text) == 200
    assert found.worst[0].cosine == pytest.approx(-1.0)
    assert found.worst[0].num_tokens == lengths[1][123]
    assert found.min_cosine == found.worst[0].cosine


def test_plain_texts_are_queries_against_each_other():
    evaluation, documents = text_set(200), clustered(200)
    reference = EvaluationEmbeddings(queries=NO_QUERIES, documents=documents)
    candidate = moved(reference, 0.3)
    found = assess(evaluation, reference, candidate, lengths=lengths_of(evaluation))
    expected = overlap_at_k(
        documents, documents, candidate.documents, candidate.documents, 10, exclude_self=True
    )
    assert found.overlap_at_k.value == pytest.approx(expected.mean())
    assert found.num_queries == found.num_texts == 200
    assert found.labels == ()
    assert all(part.overlap_at_k is not None for part in found.slices)


def test_pairs_get_spearman_and_overlap():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 200, (2, 150))
    documents = clustered(200)
    score = np.einsum("ij,ij->i", documents[first], documents[second])
    pairs = ScoredPairs(first=first, second=second, score=score)
    evaluation = text_set(200, pairs)
    reference = EvaluationEmbeddings(queries=NO_QUERIES, documents=documents)
    found = assess(evaluation, reference, moved(reference, 0.3), lengths=lengths_of(evaluation))
    assert [metric.name for metric in found.labels] == ["spearman"]
    assert found.labels[0].reference == pytest.approx(1.0)
    assert found.labels[0].candidate < 0.999
    assert found.overlap_at_k is not None


def test_too_few_documents_have_no_overlap():
    evaluation = text_set(20)
    reference = EvaluationEmbeddings(queries=NO_QUERIES, documents=clustered(20))
    found = assess(evaluation, reference, reference, lengths=lengths_of(evaluation))
    assert found.overlap_at_k is None
    assert found.mean_cosine.num_samples == 20


def test_few_perfect_texts_may_hide_bad_ones():
    evaluation = text_set(30)
    reference = EvaluationEmbeddings(queries=NO_QUERIES, documents=clustered(30))
    found = assess(evaluation, reference, reference, lengths=lengths_of(evaluation))
    expected = 1 - unseen_share(30) * (1 - UNSEEN_COSINE)
    assert found.mean_cosine.interval.low == pytest.approx(expected)
    assert found.p1_cosine.interval.low == -1.0


def test_the_same_seed_gives_the_same_fidelity(retrieval):
    evaluation, reference, lengths = retrieval
    candidate = moved(reference, 0.2)
    first = assess(evaluation, reference, candidate, lengths=lengths, seed=5)
    assert first == assess(evaluation, reference, candidate, lengths=lengths, seed=5)
    assert first != assess(evaluation, reference, candidate, lengths=lengths, seed=6)


def test_not_a_number_is_named(retrieval):
    evaluation, reference, lengths = retrieval
    documents = reference.documents.copy()
    documents[17, 0] = np.nan
    with pytest.raises(NonFiniteError, match="candidate documents: row 17"):
        assess(evaluation, reference, replace(reference, documents=documents), lengths=lengths)


def test_rows_of_another_set_are_refused(retrieval):
    evaluation, reference, lengths = retrieval
    other = replace(reference, documents=reference.documents[:-1])
    with pytest.raises(StepError, match="400 documents, but 399 embeddings"):
        assess(evaluation, other, other, lengths=lengths)
    with pytest.raises(StepError, match="candidate documents"):
        assess(evaluation, reference, other, lengths=lengths)
    with pytest.raises(StepError, match="299 token counts"):
        assess(evaluation, reference, reference, lengths=(lengths[0][1:], lengths[1]))


def test_an_empty_set_is_refused():
    reference = EvaluationEmbeddings(queries=NO_QUERIES, documents=NO_QUERIES)
    with pytest.raises(StepError, match="no documents"):
        assess(text_set(0), reference, reference, lengths=lengths_of(text_set(0)))
