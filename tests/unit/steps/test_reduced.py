"""Smaller evaluations for slow devices."""

from __future__ import annotations

import numpy as np
import pytest

from exporter.steps.reduced import reduce_evaluation
from exporter.steps.texts import TokenizedEvaluation
from exporter.values import EvaluationEmbeddings, EvaluationSet, Judgements
from targets.contract import TokenSequences

NUM_QUERIES, NUM_DOCUMENTS = 40, 90


def tokens_of(number: int, first: int) -> TokenSequences:
    return TokenSequences.from_lists([[first + i] * (1 + i % 7) for i in range(number)], 0)


def whole(*, labelled: bool = True, num_queries: int = NUM_QUERIES) -> TokenizedEvaluation:
    """Query i asks for document 2i; every text is its own name."""
    query = np.arange(num_queries, dtype=np.int64)
    judgements = Judgements(query=query, document=2 * query, gain=np.ones(num_queries, np.float32))
    texts = EvaluationSet(
        name="t",
        origin="o",
        split="test",
        query_ids=tuple(f"q{i}" for i in range(num_queries)),
        queries=tuple(f"query {i}" for i in range(num_queries)),
        document_ids=tuple(f"d{i}" for i in range(NUM_DOCUMENTS)),
        documents=tuple(f"document {i}" for i in range(NUM_DOCUMENTS)),
        judgements=judgements if labelled else None,
        note="shared index",
        sha256="0" * 64,
    )
    return TokenizedEvaluation(
        texts=texts,
        queries=tokens_of(num_queries, 1000),
        documents=tokens_of(NUM_DOCUMENTS, 5000),
    )


def test_texts_tokens_and_rows_stay_together():
    reduced = reduce_evaluation(whole(), num_queries=10, num_documents=30)
    few = reduced.evaluation
    assert len(few.queries) == len(few.texts.queries) == 10
    assert len(few.documents) == len(few.texts.documents) == 30
    for index, text, ids in zip(reduced.documents, few.texts.documents, few.documents, strict=True):
        assert text == f"document {index}"
        assert ids[0] == 5000 + index
    rows = EvaluationEmbeddings(
        queries=np.arange(NUM_QUERIES, dtype=np.float32)[:, None],
        documents=np.arange(NUM_DOCUMENTS, dtype=np.float32)[:, None],
    )
    taken = reduced.rows_of(rows)
    assert taken.queries[:, 0].tolist() == reduced.queries.tolist()
    assert taken.documents[:, 0].tolist() == reduced.documents.tolist()


def test_relevant_documents_come_along_with_their_labels():
    reduced = reduce_evaluation(whole(), num_queries=10, num_documents=30)
    labels = reduced.evaluation.texts.judgements
    assert labels is not None
    assert len(labels) == 10  # one for every query: nothing was lost
    pairs = zip(labels.query, labels.document, strict=True)
    for query, document in pairs:
        asked = reduced.evaluation.texts.queries[query].split()[1]
        found = reduced.evaluation.texts.documents[document].split()[1]
        assert int(found) == 2 * int(asked)


def test_labels_whose_document_was_left_out_are_dropped():
    reduced = reduce_evaluation(whole(), num_queries=40, num_documents=15)
    labels = reduced.evaluation.texts.judgements
    assert labels is not None
    assert len(labels) == 15
    assert labels.document.max() < 15


def test_a_small_set_is_taken_whole():
    everything = whole()
    reduced = reduce_evaluation(everything, num_queries=100, num_documents=100)
    assert reduced.evaluation.texts is everything.texts


def test_it_says_what_it_is_and_is_another_set():
    few = reduce_evaluation(whole(), num_queries=10, num_documents=30).evaluation.texts
    assert few.note == "shared index; 10 queries and 30 documents drawn from it"
    assert few.name == "part of t"
    assert few.sha256 != whole().texts.sha256


def test_plain_texts_get_the_queries_share():
    plain = whole(labelled=False, num_queries=0)
    few = reduce_evaluation(plain, num_queries=20, num_documents=30).evaluation
    assert (len(few.queries), len(few.documents)) == (0, 50)


@pytest.mark.parametrize(("seed", "same"), [(0, True), (1, False)])
def test_the_seed_decides_the_draw(seed, same):
    first = reduce_evaluation(whole(), num_queries=10, num_documents=30, seed=0)
    other = reduce_evaluation(whole(), num_queries=10, num_documents=30, seed=seed)
    assert (first.queries.tolist() == other.queries.tolist()) is same
