"""Similarity pairs: `.jsonl` lines with two texts and a score."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from exporter.source.evaluation_sets import label_value, make_evaluation_set
from exporter.source.json_lines import missing_field, read_json_lines, text_field
from exporter.source.text_lines import place, shown
from exporter.values import EvaluationSet, ScoredPairs
from targets.errors import TextsError

PAIRS_FILE = "pairs.jsonl"
_TEXT_FIELDS = (("a", "b"), ("sentence1", "sentence2"), ("text_a", "text_b"))
_SCORE_FIELD = "score"


def holds_pairs(path: Path) -> bool:
    """Tell by its first object whether a `.jsonl` file holds similarity pairs.

    Raises:
        TextsError: if that line is malformed.
    """
    first = next(read_json_lines(path), None)
    return first is not None and _text_fields(first[1]) is not None


def _text_fields(record: dict[str, object]) -> tuple[str, str] | None:
    return next((pair for pair in _TEXT_FIELDS if pair[0] in record and pair[1] in record), None)


def load_pairs(path: Path, name: str) -> EvaluationSet:
    """Read similarity pairs: fields a and b (or sentence1/2, text_a/b), and score.

    Raises:
        TextsError: if the file is empty, a text is missing or empty, or a score is not a number.
    """
    index_of: dict[str, int] = {}
    rows: list[tuple[int, int, float]] = []
    for number, record in read_json_lines(path):
        fields = _text_fields(record)
        if fields is None:
            raise missing_field(path, number, "a", record)
        first, second = (_pair_text(path, number, record, field) for field in fields)
        rows.append(
            (
                index_of.setdefault(first, len(index_of)),
                index_of.setdefault(second, len(index_of)),
                _score(path, number, record),
            )
        )
    if not rows:
        raise TextsError(
            f"{path} is empty", hint='give lines like {"a": "…", "b": "…", "score": 1}'
        )
    return make_evaluation_set(
        name=name,
        origin=str(path),
        document_ids=[str(i) for i in range(len(index_of))],
        documents=list(index_of),
        pairs=ScoredPairs(
            first=np.array([row[0] for row in rows], np.int64),
            second=np.array([row[1] for row in rows], np.int64),
            score=np.array([row[2] for row in rows], np.float32),
        ),
    )


def _pair_text(path: Path, number: int, record: dict[str, object], field: str) -> str:
    text = text_field(path, number, record, field).strip()
    if not text:
        raise TextsError(
            f'{place(path, number)}: the field "{field}" is empty',
            why="a pair needs two texts",
            hint="give it a text or remove the line",
        )
    return text


def _score(path: Path, number: int, record: dict[str, object]) -> float:
    if _SCORE_FIELD not in record:
        raise missing_field(path, number, _SCORE_FIELD, record)
    value = record[_SCORE_FIELD]
    score = label_value(value)
    if score is None:
        raise TextsError(
            f"{place(path, number)}: the score {shown(str(value))} is not a number",
            hint="give a finite JSON number; higher means more similar",
        )
    return score
