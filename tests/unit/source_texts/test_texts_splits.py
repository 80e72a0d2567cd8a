from __future__ import annotations

import numpy as np
import pytest

from exporter.source.corpus import load_evaluation
from exporter.source.evaluation_sets import (
    EvaluationSources,
    make_evaluation_set,
    make_judgements,
)
from exporter.source.splits import assert_disjoint, split_evaluation
from exporter.values import EvaluationSet, ScoredPairs, TextSet

HEADER = "query-id\tcorpus-id\tscore\n"


def retrieval(
    num_queries: int, num_documents: int | None = None, **changes: object
) -> EvaluationSet:
    size = num_documents or num_queries
    values: dict[str, object] = {
        "name": "made",
        "origin": "made here",
        "query_ids": [f"q{i}" for i in range(num_queries)],
        "queries": [f"query {i}" for i in range(num_queries)],
        "document_ids": [f"d{i}" for i in range(size)],
        "documents": [f"document {i}" for i in range(size)],
        "judgements": make_judgements((i, i, 1.0 + i) for i in range(num_queries)),
        "note": "made for a test",
    }
    return make_evaluation_set(**{**values, **changes})  # type: ignore[arg-type]


def similarity(edges: list[tuple[str, str]]) -> EvaluationSet:
    texts = list(dict.fromkeys(text for edge in edges for text in edge))
    return make_evaluation_set(
        name="pairs",
        origin="made here",
        document_ids=[str(i) for i in range(len(texts))],
        documents=texts,
        pairs=ScoredPairs(
            first=np.array([texts.index(a) for a, _ in edges], np.int64),
            second=np.array([texts.index(b) for _, b in edges], np.int64),
            score=np.arange(len(edges), dtype=np.float32),
        ),
    )


def plain(texts: list[str]) -> EvaluationSet:
    ids = [str(i) for i in range(len(texts))]
    return make_evaluation_set(name="plain", origin="made here", document_ids=ids, documents=texts)


def labels(one: EvaluationSet) -> set[tuple[str, str, float]]:
    assert one.judgements is not None
    rows = zip(one.judgements.query, one.judgements.document, one.judgements.gain, strict=True)
    return {(one.query_ids[q], one.document_ids[d], float(gain)) for q, d, gain in rows}


def scored(one: EvaluationSet) -> set[tuple[str, str, float]]:
    assert one.pairs is not None
    rows = zip(one.pairs.first, one.pairs.second, one.pairs.score, strict=True)
    return {(one.documents[a], one.documents[b], float(score)) for a, b, score in rows}


NOTHING_CALIBRATED = TextSet(name="none", origin="none", texts=(), sha256="")


@pytest.mark.parametrize("everything", [retrieval(9), similarity([("a", "b")]), plain(["x"])])
def test_a_forced_recipe_is_certified_on_everything(everything: EvaluationSet) -> None:
    splits = split_evaluation(EvaluationSources(all_or_test=everything), seed=0, choose=False)
    assert (splits.dev, splits.test, splits.shared_documents) == (None, everything, False)


def test_own_documents_are_divided_with_the_queries() -> None:
    sources = EvaluationSources(all_or_test=retrieval(100), own_documents=True)
    splits = split_evaluation(sources, seed=0, choose=True)
    assert splits.dev is not None
    assert (len(splits.dev.queries), len(splits.dev.documents)) == (30, 30)
    assert (len(splits.test.queries), len(splits.test.documents)) == (70, 70)
    assert labels(splits.dev) | labels(splits.test) == labels(sources.all_or_test)
    assert not labels(splits.dev) & labels(splits.test)
    assert (splits.dev.split, splits.test.split) == ("dev", "test")
    assert not splits.shared_documents
    assert_disjoint(NOTHING_CALIBRATED, splits)


def test_limit_of_development_queries() -> None:
    sources = EvaluationSources(all_or_test=retrieval(100), own_documents=True)
    splits = split_evaluation(sources, seed=0, choose=True, max_dev_queries=12)
    assert splits.dev is not None
    assert (len(splits.dev.queries), len(splits.test.queries)) == (12, 88)


def test_a_users_index_is_shared_and_said() -> None:
    everything = retrieval(20, 200)
    sources = EvaluationSources(all_or_test=everything)
    splits = split_evaluation(sources, seed=0, choose=True, max_dev_documents=50)
    assert splits.dev is not None
    assert splits.shared_documents
    assert (len(splits.dev.queries), len(splits.dev.documents)) == (6, 50)
    assert (len(splits.test.queries), splits.test.documents) == (14, everything.documents)
    assert labels(splits.dev) | labels(splits.test) == labels(everything)
    for split in (splits.dev, splits.test):
        assert "made for a test" in split.note
        assert "test all 200 documents, development 50 of them" in split.note
    assert_disjoint(NOTHING_CALIBRATED, splits)


def test_relevant_documents_stay_beyond_the_limit() -> None:
    sources = EvaluationSources(all_or_test=retrieval(20, 200))
    splits = split_evaluation(sources, seed=0, choose=True, max_dev_documents=2)
    assert splits.dev is not None
    assert len(splits.dev.documents) == 6
    assert len(labels(splits.dev)) == 6


def test_queries_of_one_text_stay_together() -> None:
    queries = [f"Query {i // 5}" + "  " * (i % 5) for i in range(100)]
    sources = EvaluationSources(all_or_test=retrieval(100, queries=queries))
    splits = split_evaluation(sources, seed=0, choose=True, max_dev_queries=17)
    assert splits.dev is not None
    assert len(splits.dev.queries) == 15
    assert_disjoint(NOTHING_CALIBRATED, splits)


def test_one_query_text_cannot_be_divided(refused) -> None:
    sources = EvaluationSources(all_or_test=retrieval(10, queries=["same"] * 10))
    refused(
        lambda: split_evaluation(sources, seed=0, choose=True),
        "made here cannot be divided",
        "10 queries in 1 groups",
        "--precision",
    )


@pytest.mark.parametrize(
    "everything", [retrieval(1), similarity([("a", "b")]), plain(["x"])], ids=lambda e: e.kind
)
def test_too_little_to_divide(everything: EvaluationSet, refused) -> None:
    sources = EvaluationSources(all_or_test=everything)
    refused(lambda: split_evaluation(sources, seed=0, choose=True), "cannot be divided")


@pytest.mark.parametrize(
    "everything",
    [retrieval(2), similarity([("a", "b"), ("c", "d")]), plain(["x", "y"])],
    ids=lambda e: e.kind,
)
def test_two_can_be_divided(everything: EvaluationSet) -> None:
    splits = split_evaluation(EvaluationSources(all_or_test=everything), seed=0, choose=True)
    assert splits.dev is not None
    assert_disjoint(NOTHING_CALIBRATED, splits)


def test_the_sources_own_development_split(beir, write_jsonl) -> None:
    folder = beir(
        qrels={
            "test.tsv": HEADER + "q0\td0\t1\nq1\td1\t1\n",
            "dev.tsv": HEADER + "x0\td2\t1\nx1\td3\t1\nx2\td4\t1\n",
        }
    )
    asked = ["new 0", "QUESTION  1", "new 2"]
    write_jsonl("set/dev.queries.jsonl", [{"_id": f"x{i}", "text": t} for i, t in enumerate(asked)])
    sources = load_evaluation(str(folder))
    splits = split_evaluation(sources, seed=0, choose=True, max_dev_documents=3)
    assert splits.dev is not None
    assert splits.dev.queries == ("new 0", "new 2")
    assert len(splits.dev.documents) == 3
    assert splits.test.queries == ("question 0", "question 1")
    assert len(splits.test.documents) == 6
    assert "2 of 3 queries" in splits.dev.note
    assert "test queries too: 1" in splits.dev.note
    assert splits.shared_documents
    assert_disjoint(NOTHING_CALIBRATED, splits)
    forced = split_evaluation(sources, seed=0, choose=False)
    assert (forced.dev, forced.test) == (None, sources.all_or_test)


def test_development_split_that_only_repeats_test(beir, refused) -> None:
    lines = HEADER + "q0\td0\t1\n"
    sources = load_evaluation(str(beir(qrels={"test.tsv": lines, "dev.tsv": lines})))
    refused(lambda: split_evaluation(sources, seed=0, choose=True), "dev.tsv", "--precision")


def test_limit_of_a_shipped_development_split(beir) -> None:
    qrels = {
        "test.tsv": HEADER + "q0\td0\t1\n",
        "dev.tsv": HEADER + "q1\td1\t1\nq2\td2\t1\nq3\td3\t1\n",
    }
    sources = load_evaluation(str(beir(qrels=qrels)))
    splits = split_evaluation(sources, seed=0, choose=True, max_dev_queries=2)
    assert splits.dev is not None
    assert len(splits.dev.queries) == 2
    assert "2 of 3 queries" in splits.dev.note


def test_pairs_that_share_a_text_stay_together() -> None:
    chain = [("hub", f"spoke {i}") for i in range(40)] + [("SPOKE 39", "tail")]
    alone = [(f"left {i}", f"right {i}") for i in range(60)]
    sources = EvaluationSources(all_or_test=similarity(chain + alone))
    splits = split_evaluation(sources, seed=0, choose=True)
    assert splits.dev is not None
    assert len(scored(splits.dev)) == 30
    assert all("hub" not in row for row in scored(splits.dev))
    assert scored(splits.dev) | scored(splits.test) == scored(sources.all_or_test)
    assert_disjoint(NOTHING_CALIBRATED, splits)


def test_pairs_that_all_hang_together(refused) -> None:
    sources = EvaluationSources(all_or_test=similarity([("hub", f"{i}") for i in range(9)]))
    refused(lambda: split_evaluation(sources, seed=0, choose=True), "9 pairs in 1 groups")


def test_limit_of_development_texts() -> None:
    sources = EvaluationSources(all_or_test=plain([f"text {i}" for i in range(100)]))
    splits = split_evaluation(sources, seed=0, choose=True, max_dev_documents=10)
    assert splits.dev is not None
    assert (len(splits.dev.documents), len(splits.test.documents)) == (10, 90)


def test_seed_decides() -> None:
    sources = EvaluationSources(all_or_test=retrieval(100), own_documents=True)
    first, again, other = (split_evaluation(sources, seed=s, choose=True).test for s in (0, 0, 1))
    assert first.sha256 == again.sha256 != other.sha256
