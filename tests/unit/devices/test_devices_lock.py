"""The lock of emulated devices: what ships is complete, pinned, and names no host."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from targets.devices.userland import MIN_QEMU
from targets.devices.userland_lock import LOCK_VARIABLE, lock_path, read_lock, write_lock
from targets.errors import ConfigError

ROOT = Path(__file__).parents[3]
ARCHITECTURES = {"amd64", "arm64"}


def test_the_lock_that_ships_is_complete():
    lock = read_lock()
    assert lock.source == lock_path() == ROOT / "targets/devices/userland.lock.json"
    assert set(lock.qemu) == set(lock.packages) == set(lock.wheels) == ARCHITECTURES
    for architecture in ARCHITECTURES:
        names = {one.name for one in lock.packages[architecture]}
        assert {"libc6", "python3.11-minimal", "libpython3.11-stdlib", "libgomp1"} <= names
        assert {one.name for one in lock.wheels[architecture]} == {"numpy", "onnxruntime"}
        version = lock.qemu[architecture].version
        assert int(re.search(r":(\d+)\.", version).group(1)) >= MIN_QEMU


def test_packages_are_of_their_architecture():
    lock = read_lock()
    for architecture in ARCHITECTURES:
        for one in (*lock.packages[architecture], lock.qemu[architecture]):
            assert re.search(rf"_({architecture}|all)\.deb$", one.path), one
    machines = {"amd64": "x86_64", "arm64": "aarch64"}
    for architecture, machine in machines.items():
        assert all(one.path.endswith(f"{machine}.whl") for one in lock.wheels[architecture])


def test_wheels_are_the_versions_that_the_project_pins():
    """What an artifact was built with is what runs it under emulation."""
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    for wheels in read_lock().wheels.values():
        assert {one.name: one.version for one in wheels} == {
            name: pinned[name] for name in ("numpy", "onnxruntime")
        }


def test_the_lock_names_no_host():
    text = lock_path().read_text("utf-8")
    assert "://" not in text
    assert not re.search(r"[a-z]\.(org|com|net|io)\b", text)


def test_the_environment_names_another_lock(tmp_path, monkeypatch):
    shipped = read_lock()
    path = tmp_path / "other.json"
    write_lock(replace(shipped, suites={"userland": "other"}), path)
    monkeypatch.setenv(LOCK_VARIABLE, str(path))
    assert read_lock().source == path
    assert read_lock().suites == {"userland": "other"}
    assert replace(read_lock(), source=shipped.source, suites=shipped.suites) == shipped


def test_what_a_part_is_made_of_is_its_key():
    lock = read_lock()
    other = replace(lock.packages["arm64"][0], sha256="0" * 64)
    changed = replace(lock, packages={**lock.packages, "arm64": (other,)})
    assert changed.userland_key("arm64") != lock.userland_key("arm64")
    assert changed.userland_key("amd64") == lock.userland_key("amd64")
    assert changed.qemu_key("amd64") == lock.qemu_key("amd64") != lock.qemu_key("arm64")


def change(values, *keys, to):
    for key in keys[:-1]:
        values = values[key]
    values[keys[-1]] = to


ARM = ("userlands", "arm64")


@pytest.mark.parametrize(
    ("keys", "to", "said"),
    [
        (("schema_version",), 2, "schema_version is 2"),
        ((*ARM, "packages"), [], "without packages or"),
        ((*ARM, "wheels"), [], "or without wheels"),
        ((*ARM, "wheels", 0, "sha256"), "abc", "'abc' is no SHA-256"),
        ((*ARM, "packages", 0, "path"), "../../etc/passwd", "no path below"),
        ((*ARM, "packages", 0, "path"), "/etc/passwd", "no path below"),
        ((*ARM, "packages", 0, "path"), "pool/../../etc/passwd", "no path below"),
        ((*ARM, "packages", 0, "url"), "x", "url"),
        (("qemu",), [], "list"),
    ],
)
def test_a_malformed_lock_is_refused(tmp_path, keys, to, said):
    values = json.loads(lock_path().read_text("utf-8"))
    change(values, *keys, to=to)
    path = tmp_path / "lock.json"
    path.write_text(json.dumps(values), "utf-8")
    with pytest.raises(ConfigError, match="cannot be used") as caught:
        read_lock(path)
    assert said in caught.value.why
    assert LOCK_VARIABLE in caught.value.hint


def test_a_missing_or_broken_lock_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.json"):
        read_lock(tmp_path / "absent.json")
    (tmp_path / "half.json").write_text("{")
    with pytest.raises(ConfigError, match=r"half\.json"):
        read_lock(tmp_path / "half.json")
