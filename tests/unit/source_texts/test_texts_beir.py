from __future__ import annotations

import numpy as np
import pytest

from exporter.source.beir import load_beir

HEADER = "query-id\tcorpus-id\tscore\n"


def test_folder_becomes_a_labelled_set(beir) -> None:
    sources = load_beir(beir())
    found = sources.all_or_test
    assert (found.kind, found.name, found.split) == ("retrieval", "set", "all")
    assert found.query_ids == ("q0", "q1", "q2", "q3")
    assert found.documents[0] == "title 0 body 0"
    assert found.judgements is not None
    np.testing.assert_array_equal(found.judgements.query, [0, 1, 2, 3])
    np.testing.assert_array_equal(found.judgements.document, [0, 1, 2, 3])
    assert found.judgements.gain.dtype == np.float32
    assert (found.note, sources.dev, sources.own_documents) == ("", None, False)


def test_labels_follow_ids_not_lines(beir) -> None:
    folder = beir(qrels={"test.tsv": HEADER + "q3\td5\t2\nq1\td0\t1\nq1\td4\t3\n"})
    found = load_beir(folder).all_or_test
    assert found.query_ids == ("q1", "q3")
    assert found.judgements is not None
    assert found.judgements.query.tolist() == [0, 0, 1]
    assert found.judgements.document.tolist() == [0, 4, 5]
    assert found.judgements.gain.tolist() == [1.0, 3.0, 2.0]
    assert "left out: 2" in found.note


def test_hash_covers_texts_ids_and_labels(beir) -> None:
    base = load_beir(beir()).all_or_test.sha256
    assert base == load_beir(beir()).all_or_test.sha256
    lines = HEADER + "".join(f"q{i}\td{i}\t{1 + (i == 3)}\n" for i in range(4))
    assert load_beir(beir(qrels={"test.tsv": lines})).all_or_test.sha256 != base
    queries = [{"_id": f"q{i}", "text": f"question {i}?"} for i in range(4)]
    assert load_beir(beir(queries=queries)).all_or_test.sha256 != base


def test_scores_that_are_not_relevant_are_dropped(beir) -> None:
    lines = HEADER + "q0\td0\t1\nq0\td1\t0\nq1\td2\t-1\nq1\tnowhere\t0\nq0\td0\t2\nq0\td0\t1\n"
    found = load_beir(beir(qrels={"test.tsv": lines})).all_or_test
    assert found.judgements is not None
    assert found.judgements.gain.tolist() == [2.0]
    assert "score of 0 or less left out: 3" in found.note
    assert "repeated judgements left out (the highest score counts): 2" in found.note


def test_judgements_without_header_and_with_windows_ends(beir) -> None:
    found = load_beir(beir(qrels={"test.tsv": "q0\td0\t1\r\n\r\nq1\td1\t1\r\n"})).all_or_test
    assert found.query_ids == ("q0", "q1")


def test_empty_documents_are_kept_and_said(beir) -> None:
    corpus = [{"_id": str(i), "title": "", "text": "x" if i < 2 else ""} for i in range(4)]
    folder = beir(corpus=corpus, qrels={"test.tsv": HEADER + "q0\t0\t1\nq1\t3\t1\n"})
    found = load_beir(folder).all_or_test
    assert found.documents == ("x", "x", "", "")
    assert "empty text: 2 (ids 2, 3)" in found.note


def test_missing_title_and_whole_number_ids(beir) -> None:
    corpus = [{"_id": 7, "text": "a"}, {"_id": 8, "title": None, "text": "b"}]
    found = load_beir(beir(corpus=corpus, qrels={"test.tsv": HEADER + "q0\t8\t1\n"})).all_or_test
    assert (found.document_ids, found.documents) == (("7", "8"), ("a", "b"))


def test_development_split_of_the_source(beir, write_jsonl) -> None:
    folder = beir(qrels={"test.tsv": HEADER + "q0\td0\t1\n", "dev.tsv": HEADER + "q1\td1\t1\n"})
    sources = load_beir(folder)
    assert sources.all_or_test.split == "test"
    assert sources.dev is not None
    assert (sources.dev.split, sources.dev.queries) == ("dev", ("question 1",))
    write_jsonl("set/dev.queries.jsonl", [{"_id": "q1", "text": "another question"}])
    own = load_beir(folder).dev
    assert own is not None
    assert own.queries == ("another question",)


@pytest.mark.parametrize("name", ["dev.tsv", "train.tsv", "graded.tsv"])
def test_the_only_judgements_are_taken(beir, name: str) -> None:
    sources = load_beir(beir(qrels={name: HEADER + "q0\td0\t1\n"}))
    assert (sources.all_or_test.split, sources.dev) == ("all", None)
    assert sources.all_or_test.origin.endswith(name)


def test_test_judgements_win_over_others(beir) -> None:
    lines = HEADER + "q0\td0\t1\n"
    sources = load_beir(beir(qrels={"graded.tsv": lines, "test.tsv": lines}))
    assert sources.all_or_test.origin.endswith("test.tsv")


@pytest.mark.parametrize("names", [[], ["a.tsv", "b.tsv"]])
def test_no_judgements_to_choose(beir, refused, names: list[str]) -> None:
    folder = beir(qrels=dict.fromkeys(names, HEADER + "q0\td0\t1\n"))
    error = refused(lambda: load_beir(folder), "qrels has no test.tsv")
    assert all(name in error.why for name in names)


@pytest.mark.parametrize("file", ["corpus", "queries"])
def test_id_that_comes_twice(beir, refused, file: str) -> None:
    rows = [{"_id": "q0", "text": "a"}, {"_id": "q1", "text": "b"}, {"_id": "q0", "text": "c"}]
    folder = beir(**{file: rows})
    refused(lambda: load_beir(folder), f"{file}.jsonl, line 3", '"q0" comes twice', "line 1")


@pytest.mark.parametrize("file", ["corpus", "queries"])
def test_empty_file(beir, refused, file: str) -> None:
    refused(lambda: load_beir(beir(**{file: []})), f"{file}.jsonl is empty")


@pytest.mark.parametrize(
    ("row", "fragment"),
    [
        ({"id": "q0", "text": "a"}, 'no field "_id"'),
        ({"_id": "q0"}, 'no field "text"'),
        ({"_id": "", "text": "a"}, "is not an id"),
        ({"_id": True, "text": "a"}, "is not an id"),
        ({"_id": "q0", "text": 3}, "is not a text"),
    ],
)
def test_malformed_entry(beir, refused, row: dict[str, object], fragment: str) -> None:
    refused(lambda: load_beir(beir(queries=[row])), "queries.jsonl, line 1", fragment)


@pytest.mark.parametrize(
    ("lines", "fragments"),
    [
        ("q0\td0\t1\nq9\td0\t1\nq8\td7\t1\n", ("line 3", '"q9"', "2 judgements", "1 to unknown")),
        ("q0\td0\t1\nq0\td9\t1\n", ("line 3", 'document "d9"', "0 judgements", "1 to unknown")),
    ],
)
def test_judgements_that_point_nowhere(beir, refused, lines: str, fragments: list[str]) -> None:
    folder = beir(qrels={"test.tsv": HEADER + lines})
    refused(lambda: load_beir(folder), "test.tsv", *fragments)


@pytest.mark.parametrize(
    ("line", "fragment"),
    [
        ("q0 d0 1", "1 tab-separated cells"),
        ("q0\t0\td0\t1", "4 tab-separated cells"),
        ("q0\td0", "2 tab-separated cells"),
        ("q0\td0\thigh", '"high" is not a number'),
        ("q0\td0\tnan", '"nan" is not a number'),
        ("q0\td0\t1e300", '"1e300" is not a number'),
    ],
)
def test_malformed_judgement(beir, refused, line: str, fragment: str) -> None:
    folder = beir(qrels={"test.tsv": f"{HEADER}q0\td0\t1\n{line}\n"})
    refused(lambda: load_beir(folder), "test.tsv, line 3", fragment)


@pytest.mark.parametrize("lines", ["", HEADER, HEADER + "q0\td0\t0\n"])
def test_no_judgement_left(beir, refused, lines: str) -> None:
    refused(lambda: load_beir(beir(qrels={"test.tsv": lines})), "test.tsv leaves no judgements")


def test_judged_query_without_text(beir, refused) -> None:
    rows = [{"_id": "q0", "text": " "}, {"_id": "q1", "text": ""}]
    folder = beir(queries=rows, qrels={"test.tsv": HEADER + "q1\td0\t1\n"})
    refused(lambda: load_beir(folder), "queries.jsonl, line 2", "the query is empty")


def test_unjudged_query_may_be_empty(beir) -> None:
    rows = [{"_id": "q0", "text": " "}, {"_id": "q1", "text": "a"}]
    folder = beir(queries=rows, qrels={"test.tsv": HEADER + "q1\td0\t1\n"})
    assert load_beir(folder).all_or_test.queries == ("a",)


def test_missing_queries(beir, refused) -> None:
    folder = beir()
    (folder / "queries.jsonl").unlink()
    refused(lambda: load_beir(folder), "queries.jsonl cannot be read")
