from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from exporter.source.layouts import read_texts, text_file

EXPECTED = [(2, "first text"), (3, "second text"), (5, "fourth text")]


def located(path: Path, field: str = "text") -> list[tuple[int, str]]:
    return [tuple(item) for item in read_texts(path, field)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "\nfirst text\nsecond text \n \nfourth text\n"),
        (
            "a.jsonl",
            '\n{"text": "first text"}\n{"text": "second text"}\n{"text": null}\n'
            '{"text": "fourth text", "other": [1]}\n',
        ),
        ("a.csv", 'n,text\n1,first text\n2,"second text"\n3,\n4,fourth text\n'),
        ("a.tsv", "n\ttext\n1\tfirst text\n2\tsecond text\n3\t \n4\tfourth text\n"),
        ("A.TXT", "\r\nfirst text\r\nsecond text\r\n\r\nfourth text\r\n"),
    ],
)
def test_each_layout_gives_texts_with_lines(write, name: str, content: str) -> None:
    assert located(write(name, content)) == EXPECTED
    assert located(write(name, b"\xef\xbb\xbf" + content.encode())) == EXPECTED


def write_parquet(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_parquet_gives_texts_with_rows(tmp_path: Path) -> None:
    path = write_parquet(
        tmp_path / "a.parquet", text=["first", None, " ", "fourth"], n=[1, 2, 3, 4]
    )
    assert located(path) == [(1, "first"), (4, "fourth")]


@pytest.mark.parametrize(
    "kind", [pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str
)
def test_parquet_string_kinds(tmp_path: Path, kind: pa.DataType) -> None:
    path = write_parquet(tmp_path / "a.parquet", body=pa.array(["one", "two"]).cast(kind))
    assert located(path, "body") == [(1, "one"), (2, "two")]


def test_named_field_is_read(write) -> None:
    path = write("a.jsonl", '{"body": "a", "text": "b"}\n')
    assert located(path, "body") == [(1, "a")]


def test_beir_document_is_title_and_text(write) -> None:
    path = write(
        "a.jsonl",
        '{"_id": "1", "title": "Wing", "text": "lift"}\n{"_id": "2", "title": "", "text": "x"}',
    )
    assert located(path) == [(1, "Wing lift"), (2, "x")]


def test_title_without_id_is_another_field(write) -> None:
    assert located(write("a.jsonl", '{"title": "Wing", "text": "lift"}\n')) == [(1, "lift")]


def test_missing_json_field_lists_the_fields(write, refused) -> None:
    path = write("a.jsonl", '{"text": "a"}\n{"label": 1, "txt": "b"}\n')
    error = refused(lambda: located(path), f"{path}, line 2", 'no field "text"')
    assert error.why.index("txt") < error.why.index("label")


def test_empty_object_has_no_fields(write, refused) -> None:
    with pytest.raises(Exception, match="has no fields"):
        located(write("a.jsonl", "{}\n"))


@pytest.mark.parametrize("value", ["3", "[1]", "true", '{"a": 1}'])
def test_field_that_is_no_text(write, refused, value: str) -> None:
    path = write("a.jsonl", f'{{"text": {value}}}\n')
    refused(lambda: located(path), f"{path}, line 1", '"text" is not a text')


@pytest.mark.parametrize("escape", [r"\ud800", r"\udc00 x"])
def test_half_a_surrogate_pair(write, refused, escape: str) -> None:
    path = write("a.jsonl", f'{{"text": "a {escape}"}}\n')
    refused(lambda: located(path), f"{path}, line 1", "surrogate")


def test_a_whole_surrogate_pair_is_text(write) -> None:
    assert located(write("a.jsonl", r'{"text": "\ud83d\ude00"}')) == [(1, "😀")]


def test_escaped_nul(write, refused) -> None:
    path = write("a.jsonl", r'{"text": "a\u0000"}')
    refused(lambda: located(path), f"{path}, line 1", "NUL")


def test_unknown_suffix_lists_the_known(write, refused) -> None:
    path = write("a.json", "[]")
    error = refused(lambda: located(path), 'unknown suffix ".json"')
    assert ".jsonl" in error.why.split(",")[0]


def test_csv_cells_may_hold_lines_and_delimiters(write) -> None:
    path = write("a.csv", 'text,n\n"a, ""b""\nc",1\nd,2\n')
    assert located(path) == [(3, 'a, "b"\nc'), (4, "d")]


@pytest.mark.parametrize("content", ["", "\n", "\na,b\n"])
def test_csv_without_header(write, refused, content: str) -> None:
    refused(lambda: located(write("a.csv", content)), "a.csv has no header line")


def test_csv_without_the_column_lists_the_columns(write, refused) -> None:
    path = write("a.csv", "id,texts\n1,a\n")
    error = refused(lambda: located(path), f"{path}, line 1", 'no column "text"', "header line")
    assert error.why.index("texts") < error.why.index('"id"')


def test_csv_with_the_column_twice(write, refused) -> None:
    refused(lambda: located(write("a.csv", "text,text\na,b\n")), "more than one column")


@pytest.mark.parametrize("row", ["a", "a,b,c"])
def test_csv_row_of_another_width(write, refused, row: str) -> None:
    path = write("a.csv", f"text,n\nfine,1\n{row}\n")
    refused(lambda: located(path), f"{path}, line 3", "the header has 2")


@pytest.mark.parametrize("row", ['"a"b,1', '"never closed,1'])
def test_csv_with_broken_quotes(write, refused, row: str) -> None:
    path = write("a.csv", f"text,n\n{row}\n")
    refused(lambda: located(path), f"{path}, line 2", "cannot be read", "quote")


def test_csv_cell_beyond_the_reader(write, refused) -> None:
    path = write("a.csv", f"text\n{'x' * 200_000}\n")
    refused(lambda: located(path), f"{path}, line 2", "field larger than field limit", ".jsonl")


def test_csv_in_a_foreign_encoding(write, refused) -> None:
    path = write("a.csv", b"text\nok\n\xff\n")
    refused(lambda: located(path), f"{path}, line 3", "0xFF")


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "scrambled"])
def test_damaged_parquet(tmp_path: Path, refused, damage: str) -> None:
    path = write_parquet(tmp_path / "a.parquet", text=[f"text {i}" for i in range(5000)])
    whole = path.read_bytes()
    middle = len(whole) // 4
    path.write_bytes(
        {
            "empty": b"",
            "text": b"just a text\n",
            "cut": whole[: len(whole) // 2],
            "scrambled": whole[:8] + b"\xff" * middle + whole[8 + middle :],
        }[damage]
    )
    refused(lambda: located(path), str(path), "is not a readable parquet file")


def test_parquet_text_that_is_not_utf8(tmp_path: Path, refused) -> None:
    texts = pa.array([b"fine", b"caf\xe9"]).view(pa.string())
    path = write_parquet(tmp_path / "a.parquet", text=texts)
    refused(lambda: located(path), f"{path}, row 2", "byte 4", "0xE9")


def test_parquet_without_the_column(tmp_path: Path, refused) -> None:
    path = write_parquet(tmp_path / "a.parquet", label=["a"], txt=["b"])
    error = refused(lambda: located(path), 'no column "text"')
    assert error.why.index("txt") < error.why.index("label")


def test_parquet_column_that_is_no_text(tmp_path: Path, refused) -> None:
    path = write_parquet(tmp_path / "a.parquet", text=[1, 2])
    refused(lambda: located(path), '"text" is not text', "int64")


def test_missing_parquet_file(tmp_path: Path, refused) -> None:
    refused(lambda: located(tmp_path / "gone.parquet"), "gone.parquet cannot be read")


def test_folder_gives_its_corpus(beir) -> None:
    folder = beir()
    assert text_file(folder) == folder / "corpus.jsonl"
    assert text_file(folder / "queries.jsonl") == folder / "queries.jsonl"


@pytest.mark.parametrize("entries", [[], [f"{i}.txt" for i in range(20)]])
def test_folder_without_a_layout(tmp_path: Path, refused, entries: list[str]) -> None:
    for entry in entries:
        (tmp_path / entry).touch()
    error = refused(lambda: text_file(tmp_path), "no known layout", "corpus.jsonl", ".parquet")
    assert ("it is empty" in error.why) == (not entries)
