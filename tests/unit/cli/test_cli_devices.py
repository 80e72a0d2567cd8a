"""`exporter devices`."""

from __future__ import annotations

import json

import pytest

from exporter.cli.app import run
from targets.errors import ExitCode
from targets.registry import device_names


@pytest.fixture(autouse=True)
def _nothing_set_up(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDDING_EXPORTER_DEVICES", str(tmp_path / "devices"))


def test_every_device_is_listed_with_what_it_takes(capsys):
    assert run(["devices", "--json"]) == ExitCode.PASS
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(device_names()) < set(rows)
    assert rows["local"]["is_ready"]
    emulated = rows["emulated:neoverse-n1"]
    assert not emulated["is_ready"]
    assert emulated["state"].startswith("exporter devices setup emulated:neoverse-n1")
    assert emulated["latency"] == "none"
    (ssh,) = [name for name in rows if name.startswith("ssh://")]
    assert rows[ssh]["latency"] == "real"


def test_names_are_printed_whole(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["devices"]) == ExitCode.PASS
    shown = capsys.readouterr().out
    assert all(name in shown for name in device_names())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["setup"], "names"),
        (["setup", "toaster"], "unknown device 'toaster'"),
        (["setup", "emulated:cortex-a73x"], "unknown CPU"),
        (["setup", "emulated:sapphire-rapids"], "cannot be emulated"),
        (["nonsense"], "nonsense"),
        (["lock"], "path"),
    ],
)
def test_a_wrong_command_line_is_usage(arguments, said, capsys, tmp_path):
    assert run(["devices", *arguments]) == ExitCode.USAGE
    shown = capsys.readouterr().err
    assert said in shown
    assert "Traceback" not in shown
    assert not (tmp_path / "devices").exists()


def test_a_lock_is_not_written_over_a_folder(capsys, tmp_path):
    assert run(["devices", "lock", str(tmp_path)]) == ExitCode.USAGE
    assert "is a folder" in capsys.readouterr().err


def test_this_machine_needs_no_set_up(capsys):
    assert run(["devices", "setup", "local", "local:avx2", "-q"]) == ExitCode.PASS
    assert capsys.readouterr().out == "local needs no set-up\nlocal:avx2 needs no set-up\n"
