"""Files of a PyTorch artifact are the same bytes every time."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from targets.errors import StorageError
from targets.pytorch.files import copy_sidecar, declare_dtype, sort_metadata

MANY = {f"key {number}": "x" * number for number in range(40)}


def test_metadata_is_put_in_order_and_tensors_stay(tmp_path):
    tensors = {"a": np.arange(6, dtype=np.float32), "b": np.ones((2, 3), np.int8)}
    paths = [tmp_path / f"{number}.safetensors" for number in range(4)]
    for path in paths:
        save_file(tensors, path, metadata=MANY)
    before = {path.read_bytes() for path in paths}
    assert len(before) > 1, "safetensors sorts metadata by itself now: sort_metadata can go"
    for path in paths:
        sort_metadata(path)
    assert len({path.read_bytes() for path in paths}) == 1
    with safe_open(paths[0], "np") as file:
        assert file.metadata() == MANY
        assert all(np.array_equal(file.get_tensor(key), one) for key, one in tensors.items())


def test_a_header_that_would_grow_is_refused(tmp_path):
    """The twin: a header shorter than ours would move the tensors."""
    path = tmp_path / "tight.safetensors"
    header = json.dumps({"__metadata__": {}}, separators=(",", ":")).encode()[:-1] + b"}"
    path.write_bytes(struct.pack("<Q", len(header) - 1) + header)
    with pytest.raises((StorageError, ValueError)):
        sort_metadata(path)


def test_the_precision_that_runs_is_declared(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"dtype": "float16", "hidden_size": 4}')
    declare_dtype(path, "float32")
    assert json.loads(path.read_text()) == {"dtype": "float32", "hidden_size": 4}
    with pytest.raises(StorageError):
        declare_dtype(tmp_path / "absent.json", "float32")


def test_the_sidecar_replaces_nothing(tmp_path):
    source, folder = tmp_path / "source", tmp_path / "folder"
    (source / "1_Pooling").mkdir(parents=True)
    folder.mkdir()
    (source / "config.json").write_text("theirs")
    (source / "1_Pooling" / "config.json").write_text("{}")
    (folder / "config.json").write_text("ours")
    copy_sidecar(source, folder)
    assert (folder / "config.json").read_text() == "ours"
    assert (folder / "1_Pooling" / "config.json").read_text() == "{}"
