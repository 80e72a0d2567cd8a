"""What is refused before any runtime is handed a plan. Heads are made here; real plans of TensorRT
for RTX are in tests/integration/tensorrt_target."""

from __future__ import annotations

import hashlib
import struct

import pytest

from targets.errors import CompileError, StorageError
from targets.tensorrt.plan_header import (
    RTX_RUNTIME,
    TENSORRT_RUNTIME,
    Loader,
    parse_header,
    parse_version,
    require_plan,
)

HERE = Loader(runtime=TENSORRT_RUNTIME, version="11.4.0.106", rebuild="exporter build BUNDLE")


def head(tag=b"ftrt", version=(11, 4, 0, 106), size=0, mask=0, zero=0) -> bytes:
    start = struct.pack("<4sI8xQ4B4xI", tag, zero, size, *version, mask)
    return start.ljust(64, b"\0")


@pytest.fixture
def plan(tmp_path):
    def make(**parts):
        path = tmp_path / "model.plan"
        path.write_bytes(head(**parts) + b"the rest")
        return path

    return make


def test_a_plan_of_this_very_tensorrt_is_taken(plan):
    path = plan()
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    found = require_plan(path, HERE, sha256=sha256)
    assert (found.runtime, found.version_text) == (TENSORRT_RUNTIME, "11.4.0.106")
    assert (found.size_bytes, found.capabilities) == (None, ())  # this format does not tell


@pytest.mark.parametrize("version", [(10, 16, 1, 11), (11, 4, 0, 105), (11, 5, 0, 0)])
def test_another_version_is_refused_with_what_to_build(plan, version):
    with pytest.raises(CompileError, match="cannot be loaded here") as caught:
        require_plan(plan(version=version), HERE)
    assert ".".join(map(str, version)) in caught.value.why
    assert "11.4.0.106" in caught.value.why
    assert "exporter build BUNDLE" in caught.value.hint


def test_version_compatible_plans_are_for_later_versions_of_the_same_major(plan):
    older = plan(version=(11, 1, 0, 3))
    assert require_plan(older, HERE, version_compatible=True).version == (11, 1, 0, 3)
    for version in ((11, 5, 0, 0), (10, 16, 1, 11)):
        with pytest.raises(CompileError):
            require_plan(plan(version=version), HERE, version_compatible=True)


def test_a_plan_of_the_other_runtime_is_refused(plan):
    with pytest.raises(CompileError) as caught:
        require_plan(plan(tag=b"vtrt", size=72), HERE)
    assert caught.value.why == "it is a plan of TensorRT for RTX, here is TensorRT"


@pytest.mark.parametrize("parts", [{"tag": b"ONNX"}, {"zero": 1}, {"tag": b"\0\0\0\0"}])
def test_what_is_no_plan_is_refused(plan, parts):
    with pytest.raises(StorageError, match="is not a TensorRT engine"):
        require_plan(plan(**parts), HERE)


def test_a_head_that_is_cut_off_is_refused(tmp_path):
    for length in (0, 4, 63):
        with pytest.raises(StorageError, match="cut off"):
            parse_header(head()[:length])
    with pytest.raises(StorageError, match="cannot be read"):
        require_plan(tmp_path / "nothing.plan", HERE)


def test_a_changed_byte_is_another_file_than_the_bundle_s(plan):
    path = plan()
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(StorageError, match="not the engine that its bundle names"):
        require_plan(path, HERE, sha256=sha256)


def test_plans_for_rtx_name_their_gpus(plan):
    path = plan(tag=b"vtrt", version=(1, 7, 1, 116), size=72, mask=0b011100)
    here = Loader(runtime=RTX_RUNTIME, version="1.7.1.116", rebuild="export again")
    assert require_plan(path, here, capability="8.9").capabilities == ("8.6", "8.9", "12.0")
    with pytest.raises(CompileError) as caught:
        require_plan(path, here, capability="7.5")
    assert caught.value.why.endswith("8.6, 8.9, 12.0, this GPU has 7.5")


def test_versions_are_read_as_far_as_they_go():
    assert parse_version("11.4.0.106") == (11, 4, 0, 106)
    assert parse_version("10.16") == (10, 16, 0, 0)
    assert parse_version("11.4.rc1.2.3") == (11, 4, 0, 2)
