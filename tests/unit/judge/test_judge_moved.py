"""The texts that moved most: which neighbours came and went, ties and copies included."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judge_sets import (
    clustered,
    lengths_of,
    moved,
    retrieval_embeddings,
    retrieval_set,
    text_set,
)

from exporter.judge.drift import cosines
from exporter.judge.fidelity import assess
from exporter.judge.moved import NUM_WORST, worst_texts
from exporter.judge.neighbours import overlap_at_k
from exporter.values import EvaluationEmbeddings, Judgements


def worst_of(evaluation, reference, candidate, k=10):
    rows = np.concatenate(
        [
            cosines(reference.queries, candidate.queries),
            cosines(reference.documents, candidate.documents),
        ]
    )
    num_tokens = np.concatenate(lengths_of(evaluation))
    return worst_texts(evaluation, reference, candidate, rows, num_tokens, k), rows


@given(noise=st.floats(0.0, 3.0), seed=st.integers(0, 1000), copies=st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_what_is_lost_is_what_the_overlap_says(noise, seed, copies):
    """An independent path: overlap@k of the same queries, with copies that tie."""
    evaluation = retrieval_set(30, 120, seed)
    reference = retrieval_embeddings(evaluation, seed)
    documents = np.repeat(reference.documents[: 120 // copies], copies, axis=0)
    documents = np.concatenate([documents, reference.documents])[:120]
    reference = replace(reference, documents=documents)
    candidate = moved(reference, noise, seed)
    found, rows = worst_of(evaluation, reference, candidate)
    expected = overlap_at_k(*sides(reference), *sides(candidate), 10)
    among = overlap_at_k(
        documents, documents, candidate.documents, candidate.documents, 10, exclude_self=True
    )
    per_row = np.concatenate([expected, among])
    worst = np.argsort(rows, kind="stable")[:NUM_WORST]
    for one, row in zip(found, worst, strict=True):
        if row < 30:  # a copy may stand in for the text itself, which faiss leaves out
            assert one.kept == pytest.approx(per_row[row])
        assert len(one.lost) == len(one.gained) == round(10 * (1 - one.kept))


def sides(embedded: EvaluationEmbeddings):
    return embedded.queries, embedded.documents


def test_ranks_and_texts_are_those_of_a_plain_sort():
    evaluation = retrieval_set(20, 80)
    reference = retrieval_embeddings(evaluation)
    candidate = moved(reference, 1.0)
    found, rows = worst_of(evaluation, reference, candidate, k=5)
    queries = [i for i in np.argsort(rows, kind="stable")[:NUM_WORST] if i < 20]
    assert queries, "the case needs a query among the worst"
    for row in queries:
        one = next(text for text in found if text.text == evaluation.queries[row])
        ranked = [
            sorted(range(80), key=lambda d, e=side: -float(unit(e.documents[d]) @ e.queries[row]))
            for side in (reference, candidate)
        ]
        lost = [d for d in ranked[0][:5] if d not in ranked[1][:5]]
        gained = [d for d in ranked[1][:5] if d not in ranked[0][:5]]
        assert [n.text for n in one.lost] == [evaluation.documents[d][:120] for d in lost]
        assert [n.text for n in one.gained] == [evaluation.documents[d][:120] for d in gained]
        for neighbours, documents in ((one.lost, lost), (one.gained, gained)):
            assert [n.reference_rank for n in neighbours] == [
                ranked[0].index(d) + 1 for d in documents
            ]
            assert [n.candidate_rank for n in neighbours] == [
                ranked[1].index(d) + 1 for d in documents
            ]


def unit(row):
    return row / np.linalg.norm(row)


def test_nothing_moved_nothing_lost():
    evaluation = retrieval_set(20, 80)
    reference = retrieval_embeddings(evaluation)
    found, _ = worst_of(evaluation, reference, reference)
    assert all(one.kept == 1.0 and not one.lost and not one.gained for one in found)


def test_a_copy_in_the_place_of_a_copy_is_no_change():
    documents = clustered(60)
    documents[1] = documents[0]
    evaluation = replace(retrieval_set(1, 60), judgements=None)
    query = documents[:1]
    k = 1
    turned = documents.copy()
    turned[0] = -turned[0]
    reference = EvaluationEmbeddings(queries=query, documents=documents)
    candidate = EvaluationEmbeddings(queries=query, documents=turned)
    found, _ = worst_of(evaluation, reference, candidate, k=k)
    of_query = next(one for one in found if one.text == "query 0")
    assert (of_query.kept, of_query.lost, of_query.gained) == (1.0, (), ())
    both = turned.copy()
    both[1] = -both[1]
    found, _ = worst_of(evaluation, reference, replace(candidate, documents=both), k=k)
    of_query = next(one for one in found if one.text == "query 0")
    assert of_query.kept == 0.0
    assert of_query.lost[0].text == evaluation.documents[0][:120]


def test_a_document_is_not_its_own_neighbour():
    evaluation, documents = text_set(60), clustered(60)
    empty = np.zeros((0, 32), np.float32)
    reference = EvaluationEmbeddings(queries=empty, documents=documents)
    found, _ = worst_of(evaluation, reference, moved(reference, 2.0))
    assert all(n.text != one.text for one in found for n in (*one.lost, *one.gained))
    assert any(one.lost for one in found)


def test_too_few_documents_say_nothing():
    evaluation, documents = text_set(12), clustered(12)
    empty = np.zeros((0, 32), np.float32)
    reference = EvaluationEmbeddings(queries=empty, documents=documents)
    found, _ = worst_of(evaluation, reference, moved(reference, 1.0))
    assert {one.kept for one in found} == {None}


def test_recall_by_length_is_that_of_the_queries_of_that_length():
    evaluation = retrieval_set(200, 300)
    reference = retrieval_embeddings(evaluation)
    lengths = (np.where(np.arange(200) < 50, 40, 5), np.full(300, 20))
    queries = reference.queries.copy()
    queries[:50] = clustered(50, seed=77)
    found = assess(
        evaluation, reference, replace(reference, queries=queries), lengths=lengths
    ).slices
    by_low = {one.low: one for one in found}
    assert by_low[0].recall == by_low[0].reference_recall > 0.5
    assert by_low[32].recall < 0.3 < 0.5 < by_low[32].reference_recall
    assert by_low[16].recall is None, "documents have no labels of their own"


def test_judged_queries_alone_count_for_recall_by_length():
    evaluation = retrieval_set(40, 100)
    every = evaluation.judgements
    judged = Judgements(query=every.query[:1], document=every.document[:1], gain=every.gain[:1])
    evaluation = replace(evaluation, judgements=judged)
    reference = retrieval_embeddings(retrieval_set(40, 100))
    lengths = (np.arange(40) % 2 * 20 + 5, np.full(100, 200))
    found = assess(evaluation, reference, reference, lengths=lengths).slices
    assert [one.recall for one in found] == [1.0, None, None]
