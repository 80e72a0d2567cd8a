from __future__ import annotations

import pytest

from exporter.source.pairs import holds_pairs, load_pairs


@pytest.mark.parametrize(
    ("first", "second"), [("a", "b"), ("sentence1", "sentence2"), ("text_a", "text_b")]
)
def test_pairs_under_every_name(write_jsonl, first: str, second: str) -> None:
    rows = [
        {first: "A cat.", second: "A dog.", "score": 2},
        {first: "A dog.", second: "A bird.", "score": 0.5},
    ]
    found = load_pairs(write_jsonl("pairs.jsonl", rows), "cats")
    assert (found.kind, found.name, found.queries) == ("pairs", "cats", ())
    assert found.documents == ("A cat.", "A dog.", "A bird.")
    assert found.pairs is not None
    assert found.pairs.first.tolist() == [0, 1]
    assert found.pairs.second.tolist() == [1, 2]
    assert found.pairs.score.tolist() == [2.0, 0.5]


def test_first_object_tells_pairs_from_texts(write_jsonl) -> None:
    assert holds_pairs(write_jsonl("a.jsonl", [{"a": "x", "b": "y"}]))
    assert not holds_pairs(write_jsonl("b.jsonl", [{"a": "x", "text": "y"}]))
    assert not holds_pairs(write_jsonl("c.jsonl", []))


@pytest.mark.parametrize(
    ("row", "fragments"),
    [
        ({"a": "x", "c": "y", "score": 1}, ('no field "a"',)),
        ({"a": "x", "b": "y", "scores": 1}, ('no field "score"', "scores")),
        ({"a": "x", "b": " ", "score": 1}, ('"b" is empty',)),
        ({"a": "x", "b": None, "score": 1}, ('"b" is empty',)),
        ({"a": 1, "b": "y", "score": 1}, ('"a" is not a text',)),
        ({"a": "x", "b": "y", "score": "1"}, ("is not a number",)),
        ({"a": "x", "b": "y", "score": True}, ("is not a number",)),
        ({"a": "x", "b": "y", "score": float("nan")}, ("is not a number",)),
        ({"a": "x", "b": "y", "score": float("inf")}, ("is not a number",)),
        ({"a": "x", "b": "y", "score": 10**60}, ("is not a number",)),
    ],
)
def test_malformed_pair(write_jsonl, refused, row: dict[str, object], fragments: list[str]) -> None:
    path = write_jsonl("p.jsonl", [{"a": "one", "b": "two", "score": 1}, row])
    refused(lambda: load_pairs(path, "p"), f"{path}, line 2", *fragments)


def test_no_pairs(write, refused) -> None:
    refused(lambda: load_pairs(write("p.jsonl", "\n"), "p"), "p.jsonl is empty")
