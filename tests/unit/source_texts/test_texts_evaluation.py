from __future__ import annotations

from pathlib import Path

import pytest

from exporter.source.corpus import load_evaluation


def test_beir_folder(beir) -> None:
    assert load_evaluation(str(beir())).all_or_test.kind == "retrieval"


def test_folder_with_pairs(write_jsonl, tmp_path: Path) -> None:
    path = write_jsonl("sts/pairs.jsonl", [{"a": "x", "b": "y", "score": 1}])
    found = load_evaluation(str(tmp_path / "sts")).all_or_test
    assert (found.kind, found.name) == ("pairs", "sts")
    assert load_evaluation(str(path)).all_or_test.sha256 == found.sha256


def test_folder_with_a_corpus_only_is_plain_text(write_jsonl, tmp_path: Path) -> None:
    write_jsonl("docs/corpus.jsonl", [{"_id": "1", "title": "A", "text": "b"}])
    found = load_evaluation(str(tmp_path / "docs")).all_or_test
    assert (found.kind, found.documents) == ("texts", ("A b",))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "one\n\ntwo\nOne\n"),
        ("a.jsonl", '{"text": "one"}\n\n{"text": "two"}\n{"text": "ONE "}\n'),
        ("a.csv", "text\none\ntwo\nONE\n"),
    ],
)
def test_plain_texts_count_once(write, name: str, content: str) -> None:
    found = load_evaluation(str(write(name, content))).all_or_test
    assert (found.kind, found.documents) == ("texts", ("one", "two"))
    assert "repeated texts left out: 1" in found.note
    assert "no labels" in found.note


def test_named_field(write) -> None:
    path = write("a.csv", "id,body\n1,hello\n")
    assert load_evaluation(str(path), field="body").all_or_test.documents == ("hello",)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_no_texts(write, refused, name: str) -> None:
    refused(lambda: load_evaluation(str(write(name, "\n \n"))), f"{name} has no texts")


def test_unknown_folder_lists_the_layouts(tmp_path: Path, refused) -> None:
    (tmp_path / "notes.md").touch()
    refused(
        lambda: load_evaluation(str(tmp_path)),
        "no known layout",
        "notes.md",
        "pairs.jsonl",
        "qrels",
    )


def test_missing_source(tmp_path: Path, refused) -> None:
    refused(lambda: load_evaluation(str(tmp_path / "none")), "none does not exist")


def test_malformed_first_line(write, refused) -> None:
    refused(lambda: load_evaluation(str(write("a.jsonl", "{\n"))), "a.jsonl, line 1", "JSON")
