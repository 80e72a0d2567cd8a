"""Damage is named before anything is loaded."""

import json
import struct
from pathlib import Path

import pytest
from model_folders import write_json, write_safetensors

from exporter.source.model_files import check_safetensors, hash_files, weight_files
from targets.errors import ModelError
from targets.hashing import sha256_file


def test_whole_file_passes(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "model.safetensors")
    assert weight_files(tmp_path) == (tmp_path / "model.safetensors",)


@pytest.mark.parametrize("kept", [0, 5, 20, -1])
def test_truncated_anywhere(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        check_safetensors(path)


def test_longer_than_its_header_says(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        check_safetensors(path)


@pytest.mark.parametrize("header", [b"not json", b"[1]", json.dumps({"w": {}}).encode()])
def test_unusable_headers(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        check_safetensors(path)


def test_shards(tmp_path: Path) -> None:
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for name in names:
        write_safetensors(tmp_path / name)
    index = {"weight_map": {"a": names[1], "b": names[0]}}
    write_json(tmp_path / "model.safetensors.index.json", index)
    assert [file.name for file in weight_files(tmp_path)] == names
    (tmp_path / names[1]).unlink()
    with pytest.raises(ModelError, match="lacks weight files"):
        weight_files(tmp_path)


def test_index_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "../secret.safetensors"}}
    write_json(tmp_path / "model.safetensors.index.json", index)
    with pytest.raises(ModelError, match="outside of its folder"):
        weight_files(tmp_path)


def test_hash_of_one_file_is_its_own(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    assert hash_files([tmp_path / "a"]) == sha256_file(tmp_path / "a")


def test_hash_of_several_ignores_the_order_and_sees_every_byte(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"12")
    b.write_bytes(b"3")
    first = hash_files([a, b])
    assert hash_files([b, a]) == first
    a.write_bytes(b"1")
    b.write_bytes(b"23")
    assert hash_files([a, b]) != first
