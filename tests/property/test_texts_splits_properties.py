"""Splits divide everything, share nothing and are repeatable, whatever the texts."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from exporter.source.evaluation_sets import (
    EvaluationSources,
    make_evaluation_set,
    make_judgements,
)
from exporter.source.splits import assert_disjoint, split_evaluation
from exporter.source.text_lines import normalize_text
from exporter.values import EvaluationSet, EvaluationSplits, ScoredPairs, TextSet
from targets.errors import TextsError

NOTHING_CALIBRATED = TextSet(name="none", origin="none", texts=(), sha256="")
SEEDS = st.integers(0, 2**63)
# Few different texts, written in several ways: repetitions are what breaks a split.
TEXTS = st.builds(
    lambda number, upper, gap: f"{'Text' if upper else 'text'}{gap}{number}",
    st.integers(0, 30),
    st.booleans(),
    st.sampled_from([" ", "  ", "\u00a0"]),
)


@st.composite
def retrieval_sets(draw: st.DrawFn) -> EvaluationSet:
    queries = draw(st.lists(TEXTS, min_size=1, max_size=40))
    num_documents = draw(st.integers(1, 30))
    places = st.tuples(
        st.integers(0, len(queries) - 1), st.integers(0, num_documents - 1), st.just(1.0)
    )
    extra = draw(st.sets(places, max_size=40))
    own = {(i, i % num_documents, 1.0) for i in range(len(queries))}
    return make_evaluation_set(
        name="made",
        origin="made",
        query_ids=[f"q{i}" for i in range(len(queries))],
        queries=queries,
        document_ids=[f"d{i}" for i in range(num_documents)],
        documents=[f"document {i}" for i in range(num_documents)],
        judgements=make_judgements(own | extra),
    )


@st.composite
def pair_sets(draw: st.DrawFn) -> EvaluationSet:
    edges = draw(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=40))
    texts = list(dict.fromkeys(text for edge in edges for text in edge))
    return make_evaluation_set(
        name="made",
        origin="made",
        document_ids=[str(i) for i in range(len(texts))],
        documents=texts,
        pairs=ScoredPairs(
            first=np.array([texts.index(a) for a, _ in edges], np.int64),
            second=np.array([texts.index(b) for _, b in edges], np.int64),
            score=np.arange(len(edges), dtype=np.float32),
        ),
    )


@st.composite
def plain_sets(draw: st.DrawFn) -> EvaluationSet:
    texts = draw(st.lists(TEXTS, min_size=1, max_size=40))
    ids = [str(i) for i in range(len(texts))]
    return make_evaluation_set(name="made", origin="made", document_ids=ids, documents=texts)


def split(everything: EvaluationSet, seed: int, limit: int = 400) -> EvaluationSplits | None:
    """Divide, and check that it is repeatable; None where there was too little."""
    sources = EvaluationSources(all_or_test=everything)
    try:
        first, second = (
            split_evaluation(
                sources, seed=seed, choose=True, max_dev_queries=limit, max_dev_documents=limit
            )
            for _ in range(2)
        )
    except TextsError:
        return None
    assert first.dev is not None
    assert second.dev is not None
    assert (first.dev.sha256, first.test.sha256) == (second.dev.sha256, second.test.sha256)
    assert_disjoint(NOTHING_CALIBRATED, first)
    return first


def labels(one: EvaluationSet) -> Counter[tuple[str, str, float]]:
    assert one.judgements is not None
    rows = zip(one.judgements.query, one.judgements.document, one.judgements.gain, strict=True)
    return Counter((one.query_ids[q], one.document_ids[d], float(gain)) for q, d, gain in rows)


def scored(one: EvaluationSet) -> Counter[tuple[str, str, float]]:
    assert one.pairs is not None
    rows = zip(one.pairs.first, one.pairs.second, one.pairs.score, strict=True)
    return Counter((one.documents[a], one.documents[b], float(score)) for a, b, score in rows)


@given(retrieval_sets(), SEEDS, st.integers(1, 20))
def test_queries_and_their_labels_are_divided(
    everything: EvaluationSet, seed: int, limit: int
) -> None:
    splits = split(everything, seed, limit)
    if splits is None:
        assert len({normalize_text(query) for query in everything.queries}) < 4
        return
    assert splits.dev is not None
    assert Counter(splits.dev.query_ids + splits.test.query_ids) == Counter(everything.query_ids)
    assert labels(splits.dev) + labels(splits.test) == labels(everything)
    assert splits.test.documents == everything.documents
    assert 1 <= len(splits.dev.queries) <= max(1, min(limit, 0.3 * len(everything.queries)))
    judgements = splits.dev.judgements
    assert judgements is not None
    assert np.all(np.diff(judgements.query) >= 0)


@given(pair_sets(), SEEDS)
def test_pairs_are_divided(everything: EvaluationSet, seed: int) -> None:
    splits = split(everything, seed)
    if splits is None:
        return
    assert splits.dev is not None
    assert scored(splits.dev) + scored(splits.test) == scored(everything)


@given(plain_sets(), SEEDS)
def test_texts_are_divided(everything: EvaluationSet, seed: int) -> None:
    splits = split(everything, seed)
    if splits is None:
        return
    assert splits.dev is not None
    assert Counter(splits.dev.documents + splits.test.documents) == Counter(everything.documents)


@given(st.integers(2, 80), SEEDS)
def test_own_documents_go_with_their_queries(count: int, seed: int) -> None:
    everything = make_evaluation_set(
        name="made",
        origin="made",
        query_ids=[f"q{i}" for i in range(count)],
        queries=[f"query {i}" for i in range(count)],
        document_ids=[f"d{i}" for i in range(count)],
        documents=[f"document {i}" for i in range(count)],
        judgements=make_judgements((i, i, 1.0) for i in range(count)),
    )
    sources = EvaluationSources(all_or_test=everything, own_documents=True)
    splits = split_evaluation(sources, seed=seed, choose=True)
    assert splits.dev is not None
    assert not splits.shared_documents
    assert_disjoint(NOTHING_CALIBRATED, splits)
    for one in (splits.dev, splits.test):
        assert [f"q{text_id[1:]}" for text_id in one.document_ids] == list(one.query_ids)
    assert labels(splits.dev) + labels(splits.test) == labels(everything)
