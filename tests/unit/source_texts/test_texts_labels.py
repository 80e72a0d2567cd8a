"""Classes of training texts, read from a second field."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from exporter.source.labels import load_labels
from targets.errors import ConfigError, TextsError

ROWS = [
    ("the card is late", "card"),
    ("where is my card", "card"),
    ("a transfer failed", "transfer"),
    ("the transfer is pending", "transfer"),
    ("only one of these", "single"),
    ("no label here", None),
    ("said twice", "card"),
    ("Said  twice", "transfer"),
]
TEXTS = [text for text, _ in ROWS[:7]]


def write_jsonl(path: Path, rows: list[tuple[str, str | None]] = ROWS) -> Path:
    lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
    path.write_text("\n".join(lines), "utf-8")
    return path


def test_each_text_gets_its_class(tmp_path):
    path = write_jsonl(tmp_path / "texts.jsonl")
    found = load_labels(str(path), TEXTS, field="text", label="label")
    assert found.names == ("card", "transfer")
    assert list(found.of_text) == [0, 0, 1, 1, -1, -1, -1]


def test_csv_has_classes_too(tmp_path):
    path = tmp_path / "texts.csv"
    path.write_text("kind,text\n" + "".join(f"{b},{a}\n" for a, b in ROWS[:4]), "utf-8")
    found = load_labels(str(path), TEXTS[:4][::-1], field="text", label="kind")
    assert list(found.of_text) == [1, 1, 0, 0]


def test_built_in_and_plain_texts_have_none(tmp_path):
    with pytest.raises(ConfigError, match="built-in texts have no labels"):
        load_labels(None, TEXTS, field="text", label="label")
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(TEXTS), "utf-8")
    with pytest.raises(ConfigError, match="holds texts only"):
        load_labels(str(path), TEXTS, field="text", label="label")


def test_a_field_that_is_not_there_is_named_with_its_line(tmp_path):
    path = write_jsonl(tmp_path / "texts.jsonl")
    with pytest.raises(TextsError, match=r"line 1.*no field \"lable\"") as caught:
        load_labels(str(path), TEXTS, field="text", label="lable")
    assert "label" in caught.value.why


def test_one_class_tells_nothing_apart(tmp_path):
    path = write_jsonl(tmp_path / "texts.jsonl", [(text, "same") for text in TEXTS])
    with pytest.raises(TextsError, match="tells nothing apart"):
        load_labels(str(path), TEXTS, field="text", label="label")
    write_jsonl(path, [(text, str(at)) for at, text in enumerate(TEXTS)])
    with pytest.raises(TextsError, match="tells nothing apart"):
        load_labels(str(path), TEXTS, field="text", label="label")
