from __future__ import annotations

import faiss
import numpy as np
import pytest
from judge_sets import clustered, noisy

from exporter.judge.neighbours import nearest, overlap_at_k, supports_overlap
from targets.errors import NonFiniteError, StepError


def brute_force(queries, documents, k, exclude_self=False):
    queries, documents = (x.astype(np.float64) for x in (queries, documents))
    scores = (queries / np.linalg.norm(queries, axis=1, keepdims=True)) @ (
        documents / np.linalg.norm(documents, axis=1, keepdims=True)
    ).T
    if exclude_self:
        np.fill_diagonal(scores, -np.inf)
    return np.argsort(-scores, axis=1, kind="stable")[:, :k], scores


@pytest.mark.parametrize("exclude_self", [False, True])
def test_neighbours_agree_with_brute_force(exclude_self):
    documents = clustered(300)
    queries = documents if exclude_self else noisy(clustered(300, seed=0), 0.4)
    expected, _ = brute_force(queries, documents, 10, exclude_self)
    found = nearest(queries, documents, 10, exclude_self=exclude_self)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, expected)


def test_overlap_agrees_with_brute_force_sets():
    queries, documents = clustered(80, seed=2), clustered(400)
    moved_queries, moved_documents = noisy(queries, 0.2), noisy(documents, 0.2, seed=9)
    own, _ = brute_force(queries, documents, 10)
    theirs, _ = brute_force(moved_queries, moved_documents, 10)
    expected = [len(set(a) & set(b)) / 10 for a, b in zip(own, theirs, strict=True)]
    found = overlap_at_k(queries, documents, moved_queries, moved_documents, 10)
    np.testing.assert_allclose(found, expected)
    assert 0.3 < found.mean() < 0.99


def test_documents_move_the_overlap_as_queries_do():
    queries, documents = clustered(80, seed=2), clustered(400)
    only_documents = overlap_at_k(queries, documents, queries, noisy(documents, 0.2), 10)
    only_queries = overlap_at_k(queries, documents, noisy(queries, 0.2), documents, 10)
    assert only_documents.mean() < 0.99
    assert only_queries.mean() < 0.99


def test_which_copy_of_a_duplicated_document_is_found_does_not_matter():
    rng = np.random.default_rng(0)
    documents = np.repeat(clustered(20), 7, axis=0)
    queries = noisy(clustered(20), 0.3)
    # the noise lies below FP32's own and decides nothing but the order of the copies
    other_copies = (documents + 1e-7 * rng.normal(size=documents.shape)).astype(np.float32)
    found = overlap_at_k(queries, documents, queries, other_copies, 10)
    np.testing.assert_array_equal(found, 1.0)
    plain_sets = [
        len(set(a) & set(b)) / 10
        for a, b in zip(
            brute_force(queries, documents, 10)[0],
            brute_force(queries, other_copies, 10)[0],
            strict=True,
        )
    ]
    assert np.mean(plain_sets) < 1.0


def test_copies_of_the_last_neighbour_do_not_stand_in_for_better_ones():
    # FP32 finds two better documents and one of five copies; the candidate finds copies only.
    angles = np.array([0.1, 0.2, *[0.5] * 5, 1.4, 1.5])
    documents = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    lost = documents.copy()
    lost[:2] = documents[-1]
    query = np.array([[1.0, 0.0]], np.float32)
    assert overlap_at_k(query, documents, query, documents, 3)[0] == 1.0
    assert overlap_at_k(query, documents, query, lost, 3)[0] == pytest.approx(1 / 3)


def test_a_text_among_its_copies_is_never_its_own_neighbour():
    documents = np.repeat(clustered(4), 15, axis=0)
    found = nearest(documents, documents, 10, exclude_self=True)
    assert found.shape == (60, 10)
    assert not (found == np.arange(60)[:, None]).any()


def test_scrambled_documents_lose_the_neighbours():
    queries, documents = clustered(80, seed=2), clustered(400)
    scrambled = documents[np.random.default_rng(0).permutation(400)]
    assert overlap_at_k(queries, documents, queries, scrambled, 10).mean() < 0.2


def test_too_few_documents_are_refused():
    rows = clustered(10)
    nearest(rows, rows, 10)
    with pytest.raises(StepError, match="among 10 documents"):
        nearest(rows, rows, 11)
    with pytest.raises(StepError, match="among 10 documents"):
        nearest(rows, rows, 10, exclude_self=True)


def test_overlap_needs_twice_as_many_documents_as_neighbours():
    assert supports_overlap(20, 10, exclude_self=False)
    assert not supports_overlap(20, 10, exclude_self=True)
    assert not supports_overlap(19, 10, exclude_self=False)


def test_not_a_number_is_refused():
    rows = clustered(30)
    bad = rows.copy()
    bad[7, 3] = np.inf
    with pytest.raises(NonFiniteError, match="row 7"):
        overlap_at_k(rows, rows, rows, bad, 5)


def test_the_number_of_search_threads_is_put_back():
    before = faiss.omp_get_max_threads()
    nearest(clustered(30), clustered(30), 3)
    assert faiss.omp_get_max_threads() == before
