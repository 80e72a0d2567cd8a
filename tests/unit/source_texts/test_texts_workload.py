"""Texts of the user's own that artifacts are timed on."""

from __future__ import annotations

import pytest

from exporter.source.workload import MAX_TEXTS, load_workload
from targets.errors import ExitCode, TextsError


def test_every_layout_of_plain_texts_is_read(write, write_jsonl):
    texts = ["where is my parcel", "refund"]
    files = [
        write("a.txt", "\n".join(texts)),
        write("b.csv", "text,id\nwhere is my parcel,1\nrefund,2\n"),
        write_jsonl("c.jsonl", [{"text": text} for text in texts]),
    ]
    assert {load_workload(str(file), seed=0).texts for file in files} == {tuple(texts)}


def test_a_field_can_be_named(write_jsonl):
    file = write_jsonl("w.jsonl", [{"query": "refund"}])
    assert load_workload(str(file), field="query", seed=0).texts == ("refund",)


def test_repeated_texts_stay(write):
    assert load_workload(str(write("w.txt", "hello\nhello\n\nhello\n")), seed=0).texts == (
        ("hello",) * 3
    )


def test_a_large_file_is_sampled_by_the_seed_and_says_so(write):
    file = str(write("w.txt", "\n".join(f"text {i}" for i in range(MAX_TEXTS + 500))))
    first = load_workload(file, seed=0)
    assert len(first.texts) == MAX_TEXTS
    assert f"({MAX_TEXTS} of {MAX_TEXTS + 500} texts, seed 0)" in first.origin
    assert first == load_workload(file, seed=0)
    assert first.texts != load_workload(file, seed=1).texts


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_a_file_without_texts_is_named(write, content):
    file = write("empty.txt", content)
    with pytest.raises(TextsError, match=r"empty\.txt has no texts") as raised:
        load_workload(str(file), seed=0)
    assert raised.value.exit_code == ExitCode.USAGE


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(TextsError, match=r"gone\.txt does not exist"):
        load_workload(str(tmp_path / "gone.txt"), seed=0)
