from __future__ import annotations

from dataclasses import replace

from exporter.source.evaluation_sets import make_evaluation_set, make_judgements
from exporter.source.splits import assert_disjoint, evaluation_texts
from exporter.values import EvaluationSet, EvaluationSplits, TextSet

CALIBRATION = TextSet(name="c", origin="c.txt", texts=("cal one", "cal two"), sha256="")


def side(split: str, queries: list[str], documents: list[str]) -> EvaluationSet:
    return make_evaluation_set(
        name="made",
        origin="made.tsv",
        split=split,  # type: ignore[arg-type]
        query_ids=[f"q{i}" for i in range(len(queries))],
        queries=queries,
        document_ids=[f"d{i}" for i in range(len(documents))],
        documents=documents,
        judgements=make_judgements((i, 0, 1.0) for i in range(len(queries))),
    )


DEV = side("dev", ["dev query"], ["dev document", ""])
TEST = side("test", ["test query"], ["test document", ""])
SPLITS = EvaluationSplits(dev=DEV, test=TEST, shared_documents=False)


def test_different_texts_pass() -> None:
    assert_disjoint(CALIBRATION, SPLITS)
    assert_disjoint(CALIBRATION, replace(SPLITS, dev=None))


def test_empty_texts_are_not_compared() -> None:
    assert_disjoint(replace(CALIBRATION, texts=("", " ")), SPLITS)
    assert "" not in evaluation_texts(SPLITS)


def test_every_evaluation_text_is_listed() -> None:
    assert evaluation_texts(SPLITS) == {"dev query", "dev document", "test query", "test document"}
    assert evaluation_texts(replace(SPLITS, dev=None)) == {"test query", "test document"}


def test_calibration_text_in_an_evaluation_set_fails(refused) -> None:
    for text, where in (
        ("TEST  query", 'query "q0" of the test split'),
        ("test document", 'document "d0" of the test split'),
        ("Dev Query", 'query "q0" of the dev split'),
        ("dev document", 'document "d0" of the dev split'),
    ):
        calibration = replace(CALIBRATION, texts=("cal one", text))
        refused(lambda c=calibration: assert_disjoint(c, SPLITS), text.lower().split()[0])
        refused(lambda c=calibration: assert_disjoint(c, SPLITS), where, "text 2 of", "c.txt")


def test_query_in_both_splits_fails_even_over_one_index(refused) -> None:
    twin = replace(SPLITS, dev=side("dev", ["other", "Test Query"], ["dev document"]))
    for splits in (twin, replace(twin, shared_documents=True)):
        refused(
            lambda s=splits: assert_disjoint(CALIBRATION, s),
            '"test query"',
            'query "q1" of the dev split',
            'query "q0" of the test split',
        )


def test_document_in_both_splits_fails_unless_the_index_is_shared(refused) -> None:
    twin = replace(SPLITS, dev=side("dev", ["dev query"], ["x", "Test document"]))
    refused(
        lambda: assert_disjoint(CALIBRATION, twin),
        'document "d1" of the dev split',
        'document "d0" of the test split',
    )
    assert_disjoint(CALIBRATION, replace(twin, shared_documents=True))
