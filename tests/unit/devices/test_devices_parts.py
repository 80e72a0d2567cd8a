"""Parts of emulated devices appear whole, once, and know when they are damaged."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from targets.devices.userland_parts import MANIFEST, build_part, damage_of
from targets.errors import StorageError


def fill(folder):
    (folder / "bin").mkdir()
    (folder / "bin/tool").write_bytes(b"tool")
    (folder / "lib").mkdir()
    (folder / "lib/one.so").symlink_to("../bin/tool")


@pytest.fixture
def part(tmp_path):
    folder = tmp_path / "shelf/part"
    assert build_part(folder, fill)
    return folder


def test_a_part_is_built_once(part):
    def again(folder):
        raise AssertionError("built twice")

    assert not build_part(part, again)
    assert damage_of(part, deep=True) == ""
    assert (part / "lib/one.so").read_bytes() == b"tool"


def replace_link(part):
    (part / "lib/one.so").unlink()
    (part / "lib/one.so").symlink_to("/etc/passwd")


@pytest.mark.parametrize(
    ("spoil", "deep", "said"),
    [
        (lambda part: (part / "bin/tool").unlink(), False, "bin/tool is missing"),
        (lambda part: (part / "bin/tool").write_bytes(b"to"), False, "has 2 bytes, not 4"),
        (lambda part: (part / "bin/tool").write_bytes(b"fool"), True, "has another content"),
        (lambda part: (part / "lib/one.so").unlink(), False, "does not point to ../bin/tool"),
        (replace_link, False, "does not point to ../bin/tool"),
        (lambda part: (part / MANIFEST).unlink(), False, "it is not there"),
        (lambda part: (part / MANIFEST).write_text("{"), False, "is unreadable"),
        (lambda part: (part / MANIFEST).write_text('{"schema_version": 9}'), False, "version 9"),
    ],
)
def test_damage_is_named_and_mended(part, spoil, deep, said):
    spoil(part)
    if deep:
        assert damage_of(part, deep=False) == ""  # which is why the first start compares hashes
    assert said in damage_of(part, deep=deep)
    assert build_part(part, fill)
    assert damage_of(part, deep=True) == ""


def test_a_build_that_fails_leaves_nothing(tmp_path):
    def fail(folder):
        fill(folder)
        raise RuntimeError("no network")

    with pytest.raises(RuntimeError, match="no network"):
        build_part(tmp_path / "part", fail)
    assert [path.name for path in tmp_path.iterdir()] == [".part.lock"]


def test_a_build_that_fails_leaves_the_damaged_one(part):
    """It may still serve whoever runs it."""
    (part / "bin/tool").unlink()

    def fail(folder):
        raise RuntimeError("no network")

    with pytest.raises(RuntimeError):
        build_part(part, fail)
    assert (part / MANIFEST).is_file()


def test_what_a_killed_build_left_is_removed(tmp_path):
    leftover = tmp_path / ".part.new"
    leftover.mkdir()
    (leftover / "half").touch()
    assert build_part(tmp_path / "part", fill)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".part.lock", "part"]
    assert not (tmp_path / "part/half").exists()


def test_builders_at_once_build_once(tmp_path):
    barrier, built = threading.Barrier(4), []

    def build(_):
        barrier.wait()
        return build_part(tmp_path / "part", lambda folder: (fill(folder), built.append(1)))

    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(build, range(4)))
    assert sorted(results) == [False, False, False, True]
    assert built == [1]


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be built") as caught:
        build_part(tmp_path / "file/part", fill)
    assert "EMBEDDING_EXPORTER_DEVICES" in caught.value.hint


def test_the_manifest_lists_every_file(part):
    values = json.loads((part / MANIFEST).read_text())
    assert list(values["files"]) == ["bin/tool"]
    assert values["links"] == {"lib/one.so": "../bin/tool"}
