"""Files of embeddings: what they hold, and that rows of another space never get in."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from exporter.deliver.embeddings_file import (
    EncodedTexts,
    append_embeddings,
    check_same_space,
    json_lines,
)
from targets.errors import StorageError, UsageError

SPACE, OTHER = "ab" * 8 + ":float32", "ab" * 8 + ":int8:0123456789ab"
FIRST = EncodedTexts(
    texts=("one", 'two\n"2"\u2028'),
    embeddings=np.arange(6, dtype=np.float32).reshape(2, 3) / 7,
    space_id=SPACE,
    artifact_sha256="a" * 64,
)
SECOND = replace(
    FIRST, texts=("three",), embeddings=np.ones((1, 3), np.float32), artifact_sha256="b" * 64
)
KINDS = pytest.mark.parametrize("name", ["e.jsonl", "e.npz"])


def test_every_line_carries_space_and_artifact(tmp_path):
    path = tmp_path / "e.jsonl"
    assert append_embeddings(path, FIRST) == 2
    records = [json.loads(line) for line in path.read_text("utf-8").split("\n")[:-1]]
    assert [record["text"] for record in records] == list(FIRST.texts)
    np.testing.assert_array_equal(
        np.array([r["embedding"] for r in records], np.float32), FIRST.embeddings
    )
    assert {r["space_id"] for r in records} == {SPACE}
    assert {r["artifact_sha256"] for r in records} == {"a" * 64}
    assert "\n".join(json_lines(FIRST)) + "\n" == path.read_text("utf-8")


def test_arrays_keep_the_order_and_say_whose_each_row_is(tmp_path):
    path = tmp_path / "new" / "e.npz"
    append_embeddings(path, FIRST)
    assert append_embeddings(path, SECOND) == 3
    append_embeddings(path, FIRST)
    with np.load(path, allow_pickle=False) as arrays:
        assert arrays["embeddings"].dtype == np.float32
        np.testing.assert_array_equal(
            arrays["embeddings"],
            np.concatenate([FIRST.embeddings, SECOND.embeddings, FIRST.embeddings]),
        )
        assert str(arrays["space_id"]) == SPACE
        assert list(arrays["artifact_sha256"]) == ["a" * 64, "b" * 64]
        assert list(arrays["artifact"]) == [0, 0, 1, 0, 0]


@KINDS
def test_equal_spaces_are_appended(tmp_path, name):
    assert append_embeddings(tmp_path / name, FIRST) == 2
    check_same_space(tmp_path / name, SPACE, 3)
    assert append_embeddings(tmp_path / name, SECOND) == 3
    assert [path.name for path in tmp_path.iterdir()] == [name]


@KINDS
@pytest.mark.parametrize(
    "changes", [{"space_id": OTHER}, {"embeddings": np.ones((2, 4), np.float32)}]
)
def test_another_space_is_refused_and_the_file_stays(tmp_path, name, changes):
    path = tmp_path / name
    append_embeddings(path, FIRST)
    before = path.read_bytes()
    wrong = replace(FIRST, **changes)
    with pytest.raises(UsageError, match="is of another embedding space") as caught:
        append_embeddings(path, wrong)
    assert wrong.space_id in caught.value.why
    with pytest.raises(UsageError, match="another embedding space"):
        check_same_space(path, wrong.space_id, wrong.embeddings.shape[1])
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == [name]


def test_one_foreign_line_among_many_is_found(tmp_path):
    path = tmp_path / "e.jsonl"
    foreign = next(json_lines(replace(FIRST, space_id=OTHER)))
    path.write_text("\n".join([*json_lines(FIRST), foreign, *json_lines(FIRST)]) + "\n", "utf-8")
    with pytest.raises(UsageError, match=r"e\.jsonl:3 is of another"):
        append_embeddings(path, FIRST)


@pytest.mark.parametrize("content", ["{}\n", "no json\n", "[1]\n", '{"text": "cut of'])
def test_a_damaged_file_of_lines_is_named_and_left(tmp_path, content):
    path = tmp_path / "e.jsonl"
    path.write_text(content)
    with pytest.raises(StorageError, match=r"e\.jsonl:1 holds no embeddings"):
        append_embeddings(path, FIRST)
    assert path.read_text() == content


def test_a_file_that_lost_its_end_is_named(tmp_path):
    path = tmp_path / "e.jsonl"
    append_embeddings(path, FIRST)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StorageError, match=r"e\.jsonl:2 holds no"):
        append_embeddings(path, SECOND)


def test_damaged_arrays_are_named_and_left(tmp_path):
    path = tmp_path / "e.npz"
    append_embeddings(path, FIRST)
    whole = path.read_bytes()
    for content in (whole[:-30], b"nothing", b""):
        path.write_bytes(content)
        with pytest.raises(StorageError, match=r"e\.npz holds no embeddings"):
            append_embeddings(path, SECOND)
        assert path.read_bytes() == content


def test_arrays_of_somebody_else_and_pickles_are_refused(tmp_path):
    path = tmp_path / "e.npz"
    np.savez(path, embeddings=np.ones((2, 3), np.float32))
    with pytest.raises(StorageError, match="holds no embeddings"):
        append_embeddings(path, FIRST)
    np.savez(
        path, embeddings=np.array([object()]), space_id="x", artifact_sha256=["a"], artifact=[0]
    )
    with pytest.raises(StorageError, match="holds no embeddings"):
        append_embeddings(path, FIRST)


@pytest.mark.parametrize("name", ["e.txt", "e", "."])
def test_a_name_of_no_format_is_refused(tmp_path, name):
    with pytest.raises(UsageError, match="--output"):
        append_embeddings(tmp_path / name, FIRST)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write the file"):
        append_embeddings(tmp_path / "file" / "e.jsonl", FIRST)
