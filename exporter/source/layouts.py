"""Plain texts in every layout: `.txt`, `.jsonl`, `.csv`, `.tsv`, `.parquet`, a BEIR folder."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from exporter.source.json_lines import read_json_lines, text_field
from exporter.source.text_lines import (
    check_text,
    nearest_first,
    place,
    read_lines,
    shown,
    unreadable,
)
from targets.errors import TextsError

CORPUS_FILE = "corpus.jsonl"
LAYOUTS = (
    ".txt (one text per line), .jsonl, .csv or .tsv (with a header line), .parquet, "
    "or a BEIR folder (corpus.jsonl; for evaluation also queries.jsonl and qrels/*.tsv)"
)
_PARQUET_BATCH_ROWS = 4096


class LocatedText(NamedTuple):
    """A text with the number of its line (or row), from 1."""

    number: int
    text: str


Reader = Callable[[Path, str], Iterator[LocatedText]]


def read_texts(path: Path, field: str) -> Iterator[LocatedText]:
    """Stream the texts of a file; blank and null texts are left out.

    Args:
        path: a file in one of the layouts.
        field: the JSON field or the column that holds the text; not used for `.txt`.

    Raises:
        TextsError: if the suffix is unknown or the content is wrong; names the line.
    """
    read = _reader_of(path)
    return (located for located in read(path, field) if located.text)


def text_file(path: Path) -> Path:
    """Return the file whose lines are the texts: the path itself, or a BEIR folder's corpus.

    Raises:
        TextsError: if a folder has no corpus.
    """
    if not path.is_dir():
        return path
    if (path / CORPUS_FILE).is_file():
        return path / CORPUS_FILE
    raise unknown_folder(path)


def unknown_folder(path: Path) -> TextsError:
    """Return the error for a folder that has none of the layouts' files."""
    entries = sorted(entry.name for entry in path.iterdir())
    listed = ", ".join(entries[:8]) + (", …" if len(entries) > 8 else "")
    return TextsError(
        f"the folder {path} has no known layout",
        why=f"it holds {listed}" if entries else "it is empty",
        hint=f"give a file inside it, or one of: {LAYOUTS}; or a folder with pairs.jsonl",
    )


def _reader_of(path: Path) -> Reader:
    readers: dict[str, Reader] = {
        ".txt": _read_txt,
        ".jsonl": _read_jsonl,
        ".csv": _read_csv,
        ".tsv": _read_csv,
        ".parquet": _read_parquet,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        nearest = nearest_first(path.suffix, readers)
        raise TextsError(
            f'{path} has an unknown suffix "{path.suffix}"',
            why="the suffix says how the file is read; known are " + ", ".join(nearest),
            hint=f"rename or convert the file; the layouts are {LAYOUTS}",
        )
    return reader


def _read_txt(path: Path, field: str) -> Iterator[LocatedText]:
    for number, line in read_lines(path):
        yield LocatedText(number, line.strip())


def _read_jsonl(path: Path, field: str) -> Iterator[LocatedText]:
    for number, record in read_json_lines(path):
        yield LocatedText(number, record_text(path, number, record, field))


def record_text(path: Path, number: int, record: dict[str, object], field: str = "text") -> str:
    """Return a JSON object's text; a document of a BEIR corpus is its title and its text.

    Raises:
        TextsError: if the field is missing or is not a text.
    """
    text = text_field(path, number, record, field)
    if field == "text" and "_id" in record and "title" in record:
        text = f"{text_field(path, number, record, 'title')} {text}"
    return text.strip()


# ---------------------------------------------------------------------------- .csv, .tsv


def _read_csv(path: Path, field: str) -> Iterator[LocatedText]:
    lines = (line + "\n" for _, line in read_lines(path))
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        column = _column(path, header, field)
        for row in reader:
            if row:
                yield LocatedText(
                    reader.line_num, _cell(path, reader.line_num, header, row, column)
                )
    except csv.Error as error:
        raise TextsError(
            f"{place(path, reader.line_num)} cannot be read",
            why=str(error),
            hint="quote cells that hold quotes, delimiters or line ends, doubling inner quotes; "
            "or give the texts as .jsonl",
        ) from error


def _column(path: Path, header: list[str], field: str) -> int:
    if not any(header):
        raise TextsError(
            f"{path} has no header line",
            why="the file is empty or its first line is",
            hint=f'the first line must name the columns, one of them "{field}"',
        )
    if header.count(field) != 1:
        there = ", ".join(shown(name) for name in nearest_first(field, header))
        found = "no column" if field not in header else "more than one column"
        raise TextsError(
            f'{place(path, 1)} has {found} "{field}"',
            why=f"the header names {there}",
            hint="name the column that holds the text; if that line is a text already, "
            "put a header line before it",
        )
    return header.index(field)


def _cell(path: Path, number: int, header: list[str], row: list[str], column: int) -> str:
    if len(row) != len(header):
        raise TextsError(
            f"{place(path, number)} has {len(row)} cells, the header has {len(header)}",
            why="a cell is missing, or a delimiter inside a text is not quoted",
            hint='put texts that hold the delimiter in double quotes ("…")',
        )
    return check_text(path, number, row[column].strip())


# ------------------------------------------------------------------------------ .parquet


def _read_parquet(path: Path, field: str) -> Iterator[LocatedText]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            _check_parquet_column(path, file.schema_arrow, field)
            batches = file.iter_batches(batch_size=_PARQUET_BATCH_ROWS, columns=[field])
            yield from _parquet_texts(path, batches)
    # pyarrow reports a damaged file as ArrowException or as a bare OSError.
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise unreadable(path, error) from error
        raise TextsError(
            f"{path} is not a readable parquet file",
            why=str(error).strip().splitlines()[0] if str(error).strip() else "",
            hint="the file is damaged or incomplete; write it again",
        ) from error


def _check_parquet_column(path: Path, schema: Any, field: str) -> None:  # noqa: ANN401
    import pyarrow as pa

    if field not in schema.names:
        there = nearest_first(field, schema.names)
        raise TextsError(
            f'{path} has no column "{field}"',
            why="its columns are " + ", ".join(there),
            hint=f"name the column that holds the text (nearest: {there[0]})" if there else "",
        )
    kind = schema.field(field).type
    value_type = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(value_type) or pa.types.is_large_string(value_type)):
        raise TextsError(
            f'{path}: the column "{field}" is not text',
            why=f"its type is {kind}",
            hint="name a column of strings",
        )


def _parquet_texts(path: Path, batches: Any) -> Iterator[LocatedText]:  # noqa: ANN401
    number = 0
    for batch in batches:
        for scalar in batch.column(0):
            number += 1
            text = _parquet_text(path, number, scalar)
            yield LocatedText(number, check_text(path, number, text.strip()))


def _parquet_text(path: Path, number: int, scalar: Any) -> str:  # noqa: ANN401
    try:
        return scalar.as_py() or ""
    except UnicodeDecodeError as error:
        raise TextsError(
            f"{place(path, number)}: byte {error.start + 1} (0x{error.object[error.start]:02X}) "
            "of the text is not UTF-8",
            why="parquet does not check what is written into a column of strings",
            hint="write the file again from correctly decoded texts",
        ) from error
