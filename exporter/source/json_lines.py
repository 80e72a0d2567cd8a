"""JSON lines: objects of a `.jsonl` file and the fields they must have."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from exporter.source.text_lines import check_text, nearest_first, place, read_lines, shown
from targets.errors import TextsError


def read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    """Stream the JSON objects of a `.jsonl` file with their line numbers.

    Raises:
        TextsError: as `read_lines`, and for a line that is not one JSON object.
    """
    for number, line in read_lines(path):
        if line and not line.isspace():
            yield number, _json_object(path, number, line)


def _json_object(path: Path, number: int, line: str) -> dict[str, object]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TextsError(
            f"{place(path, number)} is not valid JSON: {shown(line)}",
            why=str(error),
            hint="give one complete JSON object per line",
        ) from error
    if not isinstance(record, dict):
        raise TextsError(
            f"{place(path, number)} is not a JSON object: {shown(line)}",
            why=f"it is a {type(record).__name__}",
            hint='give one object per line, for example {"text": "…"}',
        )
    return record


def missing_field(path: Path, number: int, field: str, fields: Iterable[str]) -> TextsError:
    """Return the error for a record without a field; names the fields, nearest first."""
    there = nearest_first(field, fields)
    return TextsError(
        f'{place(path, number)} has no field "{field}"',
        why="its fields are " + ", ".join(there) if there else "it has no fields",
        hint=f"name the field that holds the text (nearest: {there[0]})" if there else "",
    )


def text_field(path: Path, number: int, record: dict[str, object], field: str) -> str:
    """Return a text of a JSON object; null counts as the empty text.

    Raises:
        TextsError: if the field is missing or is not a text.
    """
    if field not in record:
        raise missing_field(path, number, field, record)
    value = record[field]
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TextsError(
            f'{place(path, number)}: the field "{field}" is not a text',
            why=f"it is a {type(value).__name__}: {shown(str(value))}",
            hint="give a JSON string",
        )
    return check_text(path, number, value)


def identifier(path: Path, number: int, record: dict[str, object], field: str) -> str:
    """Return an id of a JSON object; whole numbers are accepted and written out.

    Raises:
        TextsError: if the field is missing, empty, or neither a text nor a whole number.
    """
    if field not in record:
        raise missing_field(path, number, field, record)
    value = record[field]
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value:
        raise TextsError(
            f'{place(path, number)}: "{field}" is not an id: {shown(str(value))}',
            hint="ids are texts that are not empty",
        )
    return check_text(path, number, value)
