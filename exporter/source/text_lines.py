"""Lines of text files: decoding and the errors that name file and line."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from targets.errors import TextsError

MAX_LINE_BYTES = 16 << 20
"""A longer line is taken for a binary file or one without line ends, in bytes."""

_UTF8_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")
_SHOWN_CHARACTERS = 80


def normalize_text(text: str) -> str:
    """Return the form in which two texts count as the same text.

    Unicode's compatibility caseless form, NFKC(casefold(NFKC(text))) (The Unicode Standard,
    section 3.13, D146), with every run of whitespace as one space. Idempotent.
    """
    if text.isascii():
        return " ".join(text.lower().split())
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def shown(text: str) -> str:
    """Return a text as error messages quote it: one line, cut where it is long."""
    line = " ".join(text.split())
    cut = line if len(line) <= _SHOWN_CHARACTERS else line[: _SHOWN_CHARACTERS - 1] + "…"
    return f'"{cut}"'


def place(path: Path, number: int) -> str:
    """Name a record of a file: `FILE, line 7` (a parquet file has rows)."""
    return f"{path}, {'row' if path.suffix.lower() == '.parquet' else 'line'} {number}"


def nearest_first(name: str, known: Iterable[str]) -> list[str]:
    """Sort known names by their likeness to a name that is not among them."""
    matcher = difflib.SequenceMatcher(b=name.casefold())

    def unlikeness(other: str) -> float:
        matcher.set_seq1(other.casefold())
        return -matcher.ratio()

    return sorted(known, key=unlikeness)


def existing_path(source: str) -> Path:
    """Return the file or folder that the user named.

    Raises:
        TextsError: if nothing is there; names the most similar neighbour.
    """
    path = Path(source).expanduser()
    if path.is_file() or path.is_dir():
        return path
    if path.exists():
        raise TextsError(
            f"{path} is neither a file nor a folder",
            hint="give a text file or a folder; see --help for the layouts",
        )
    raise TextsError(f"{path} does not exist", hint=_neighbour_hint(path))


def _neighbour_hint(path: Path) -> str:
    try:
        siblings = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return f"the folder {path.parent} cannot be listed either; check the path"
    close = difflib.get_close_matches(path.name, siblings, n=1)
    return f"did you mean {path.parent / close[0]}?" if close else "check the path"


def unreadable(path: Path, error: OSError) -> TextsError:
    """Return the error for a file that the system does not let us read."""
    return TextsError(
        f"{path} cannot be read",
        why=error.strerror or str(error),
        hint="check that the file exists and that you may read it",
    )


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    r"""Stream the lines of a UTF-8 file with their numbers, from 1, without line ends.

    A byte order mark and `\r\n` are accepted.

    Raises:
        TextsError: if the file cannot be read, is not UTF-8, has NUL bytes or a line of
            more than `MAX_LINE_BYTES`.
    """
    try:
        with path.open("rb") as stream:
            yield from _decoded_lines(path, stream)
    except OSError as error:
        raise unreadable(path, error) from error


def _decoded_lines(path: Path, stream: BinaryIO) -> Iterator[tuple[int, str]]:
    _skip_byte_order_mark(path, stream)
    number = 0
    while raw := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        yield number, _decode(path, number, raw)


def _skip_byte_order_mark(path: Path, stream: BinaryIO) -> None:
    start = stream.read(len(_UTF8_BOM))
    if start.startswith(_UTF16_BOMS):
        raise TextsError(
            f"{place(path, 1)}: byte 1 (0x{start[0]:02X}) is not UTF-8",
            why="the file begins with a UTF-16 byte order mark",
            hint=f"convert it: iconv -f UTF-16 -t UTF-8 {path.name}",
        )
    if start != _UTF8_BOM:
        stream.seek(0)


def _decode(path: Path, number: int, raw: bytes) -> str:
    if len(raw) > MAX_LINE_BYTES:
        raise TextsError(
            f"{place(path, number)} is longer than {MAX_LINE_BYTES >> 20} MiB",
            why="this is a binary file, or a file without line ends",
            hint="give one text or one JSON object per line",
        )
    if b"\0" in raw:
        raise TextsError(
            f"{place(path, number)}: byte {raw.index(0) + 1} is NUL",
            why="texts have no NUL bytes: the file is binary, damaged, or UTF-16",
            hint="give a UTF-8 text file",
        )
    try:
        return raw.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise TextsError(
            f"{place(path, number)}: byte {error.start + 1} (0x{raw[error.start]:02X}) "
            "is not UTF-8",
            why=f"{error.reason}; the file is in another encoding or damaged",
            hint=f"convert it, for example: iconv -f WINDOWS-1252 -t UTF-8 {path.name}",
        ) from error


def check_text(path: Path, number: int, text: str) -> str:
    """Return a text that a tokenizer can take.

    Raises:
        TextsError: if it holds NUL or half of a surrogate pair (JSON escapes allow both).
    """
    if "\0" in text:
        raise TextsError(
            f"{place(path, number)}: the text holds a NUL character",
            hint="remove the character (\\u0000) from the text",
        )
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise TextsError(
            f"{place(path, number)}: the text holds half of a surrogate pair",
            why="it is no valid Unicode and has no UTF-8 form",
            hint="write the character itself instead of one \\ud8xx escape",
        )
    return text
