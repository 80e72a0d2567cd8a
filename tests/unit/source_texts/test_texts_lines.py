from __future__ import annotations

import os
from pathlib import Path

import pytest

from exporter.source.json_lines import read_json_lines
from exporter.source.text_lines import (
    MAX_LINE_BYTES,
    existing_path,
    nearest_first,
    normalize_text,
    read_lines,
    shown,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello  World", "hello world"),
        (" a\t\nb ", "a b"),
        ("ＦＵＬＬ width", "full width"),
        ("Straße", "strasse"),
        ("ﬁne", "fine"),
        ("e\u0301", "é"),
        ("a\u00a0b", "a b"),
        ("", ""),
    ],
)
def test_normalized_form(text: str, expected: str) -> None:
    assert normalize_text(text) == expected


def test_different_texts_stay_different() -> None:
    assert normalize_text("resume") != normalize_text("résumé")


def test_lines_have_numbers_and_no_ends(write) -> None:
    path = write("a.txt", "one\r\ntwo\n\nfour")
    assert list(read_lines(path)) == [(1, "one"), (2, "two"), (3, ""), (4, "four")]


def test_byte_order_mark_is_no_text(write) -> None:
    assert list(read_lines(write("a.txt", b"\xef\xbb\xbfone\n"))) == [(1, "one")]


def test_short_file_without_mark_is_whole(write) -> None:
    assert list(read_lines(write("a.txt", b"a"))) == [(1, "a")]


def test_foreign_encoding_names_line_and_byte(write, refused) -> None:
    path = write("a.txt", b"fine\ncaf\xe9 noir\n")
    refused(lambda: list(read_lines(path)), f"{path}, line 2", "byte 4", "0xE9", "iconv")


def test_utf16_is_named(write, refused) -> None:
    path = write("a.txt", "text".encode("utf-16"))
    refused(lambda: list(read_lines(path)), f"{path}, line 1", "UTF-16")


def test_nul_byte_names_line_and_byte(write, refused) -> None:
    path = write("a.txt", b"one\ntw\0o\n")
    refused(lambda: list(read_lines(path)), f"{path}, line 2", "byte 3", "NUL")


def test_endless_line_is_refused(write, refused) -> None:
    path = write("a.txt", b"x" * (MAX_LINE_BYTES + 1))
    refused(lambda: list(read_lines(path)), "line 1", "longer than 16 MiB")


def test_longest_line_is_read(write) -> None:
    ((number, text),) = read_lines(write("a.txt", b"x" * MAX_LINE_BYTES))
    assert (number, len(text)) == (1, MAX_LINE_BYTES)


def test_file_that_cannot_be_opened(tmp_path: Path, refused) -> None:
    path = tmp_path / "gone.txt"
    refused(lambda: list(read_lines(path)), str(path), "cannot be read", "No such file")


def test_missing_path_names_its_neighbour(write, tmp_path: Path, refused) -> None:
    neighbour = write("texts.jsonl", "")
    refused(
        lambda: existing_path(str(tmp_path / "text.jsonl")),
        "text.jsonl does not exist",
        f"did you mean {neighbour}",
    )


def test_missing_path_without_neighbour(tmp_path: Path, refused) -> None:
    refused(lambda: existing_path(str(tmp_path / "no" / "where.txt")), "does not exist")


def test_pipe_is_no_file(tmp_path: Path, refused) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    refused(lambda: existing_path(str(tmp_path / "pipe.txt")), "neither a file nor a folder")


@pytest.mark.parametrize(
    ("line", "fragment"),
    [
        ('{"text": "x"', "is not valid JSON"),
        ("[1, 2]", "it is a list"),
        ('"text"', "it is a str"),
        ("[" * 100_000, "is not valid JSON"),
        ("1" * 5000, "JSON"),
    ],
)
def test_malformed_json_names_the_line(write, refused, line: str, fragment: str) -> None:
    path = write("a.jsonl", f'{{"text": "fine"}}\n\n{line}\n')
    error = refused(lambda: list(read_json_lines(path)), f"{path}, line 3", fragment)
    assert len(str(error)) < 1000


def test_blank_lines_keep_the_numbers(write) -> None:
    path = write("a.jsonl", '\n{"a": 1}\n  \n{"a": 2}\n')
    assert list(read_json_lines(path)) == [(2, {"a": 1}), (4, {"a": 2})]


def test_nearest_name_comes_first() -> None:
    assert nearest_first("text", ["label", "Texts", "id"])[0] == "Texts"


def test_long_quotes_are_cut() -> None:
    assert shown("a\nb") == '"a b"'
    assert len(shown("x" * 500)) == 82
