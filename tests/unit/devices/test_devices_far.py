"""The program at the far end, talked to over a pipe as the connection does it."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import signal
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from targets.devices.far.files import KEPT_BYTES, KEPT_S, prune

ssh_link = pytest.importorskip(
    "targets.devices.ssh_link", reason="pip install 'embedding-exporter[ssh]'"
)
KEY = "0123456789abcdef" * 4
DATA = b"weights" * 1000
FILES = [{"name": "model", "size_bytes": 7000, "sha256": hashlib.sha256(DATA).hexdigest()}]


class Far:
    """The program in a child process."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", ssh_link.far_command(sys.executable)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._send(json.dumps(ssh_link.far_sources()).encode())
        self.hello = self.ask("hello", folder=str(folder))

    def _send(self, line: bytes, data: bytes = b"") -> None:
        self.process.stdin.write(line + b"\n" + data)
        self.process.stdin.flush()

    def ask(self, verb: str, data: bytes = b"", **values: object) -> dict:
        request = {"verb": verb, "payload_bytes": len(data), **values}
        self._send(json.dumps(request).encode(), data)
        answer = json.loads(self.process.stdout.readline())
        if size := answer.get("payload_bytes"):
            answer["result"]["bytes"] = self.process.stdout.read(size)
        return answer

    def leave(self) -> None:
        with self.process:
            self.process.stdin.close()


@pytest.fixture
def far(tmp_path):
    one = Far(tmp_path / "far")
    yield one
    one.leave()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "far"


def install(far: Far, data: bytes = DATA) -> dict:
    return far.ask("install", data, key=KEY, files=FILES)


def have(far: Far) -> str:
    return far.ask("have", key=KEY, files=FILES)["result"]["path"]


def test_a_file_is_there_once_it_was_installed(far, folder):
    assert have(far) == ""
    assert install(far)["result"] == {"path": str(folder / KEY)}
    assert (folder / KEY / "model").read_bytes() == DATA
    assert have(far) == str(folder / KEY)


def test_a_file_that_arrives_damaged_is_refused_and_not_kept(far, folder):
    answer = install(far, DATA[:-1] + b"!")
    assert answer["error"] == {"kind": "damaged", "message": "model arrived damaged"}
    assert [path.name[:5] for path in folder.iterdir()] == [".run-"]
    assert install(far)["result"]  # what the refused request sent was read to its end


@pytest.mark.parametrize("damage", ["changed", "shorter", "missing", "stranger"])
def test_damaged_lasting_files_are_removed(far, folder, damage):
    install(far)
    path = folder / KEY / "model"
    if damage == "missing":
        path.unlink()
    elif damage == "stranger":
        path.with_name("model.pyc").write_bytes(b"")
    else:
        path.write_bytes(DATA[:-1] + b"!" if damage == "changed" else DATA[:-1])
    assert have(far) == ""
    assert not (folder / KEY).exists()


def test_what_somebody_else_pushed_meanwhile_stays(far, folder):
    install(far)
    written = (folder / KEY / "model").stat().st_mtime_ns
    assert install(far)["result"] == {"path": str(folder / KEY)}
    assert (folder / KEY / "model").stat().st_mtime_ns == written
    assert not list(folder.glob(".incoming-*"))


def test_a_full_disk_is_told_with_its_room(far, folder):
    scratch = Path(far.hello["result"]["scratch"])
    (scratch / "tokens").symlink_to("/dev/full")
    answer = far.ask("put", DATA, **(FILES[0] | {"name": "tokens"}))
    assert answer["error"]["kind"] == "storage"
    assert f"No space left on device in {folder}" in answer["error"]["message"]
    assert "MB free" in answer["error"]["message"]


def test_a_result_is_given_once(far):
    far.ask("put", DATA, **(FILES[0] | {"name": "rows"}))
    assert far.ask("fetch", name="rows")["result"]["bytes"] == DATA
    assert far.ask("fetch", name="rows")["error"]["kind"] == "storage"


def test_a_result_outside_the_runs_folder_is_not_given(far, folder):
    (folder / "secret").write_bytes(b"secret")
    assert "error" in far.ask("fetch", name="../secret")


def test_the_runs_folder_goes_with_the_caller(folder, tmp_path):
    far = Far(folder)
    scratch = Path(far.hello["result"]["scratch"])
    assert scratch.parent == folder
    far.leave()
    assert not scratch.exists()
    assert far.process.returncode == 0


def test_a_push_that_is_cut_off_leaves_nothing(folder):
    far = Far(folder)
    request = {"verb": "install", "payload_bytes": 7000, "key": KEY, "files": FILES}
    far._send(json.dumps(request).encode(), DATA[:3000])
    far.leave()
    assert list(folder.iterdir()) == []


@pytest.fixture
def start_process():
    """Start a process that never ends by itself; killed behind the test."""
    started = []

    def start(*arguments: str) -> subprocess.Popen:
        forever = "import threading; print(flush=True); threading.Event().wait()"
        command = [sys.executable, "-c", forever, *arguments]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE))
        started[-1].stdout.readline()  # until then its command line may still be ours
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.stdout.close()
        process.wait()


def test_a_runner_goes_with_the_caller_though_it_is_stuck(folder, start_process):
    far = Far(folder)
    stuck = start_process(far.hello["result"]["scratch"])
    far.ask("adopt", pid=stuck.pid)
    far.leave()
    assert stuck.wait(20) == -signal.SIGKILL


def test_a_stranger_that_got_the_runners_number_is_left_alone(folder, start_process):
    far = Far(folder)
    stranger = start_process("/some/other/folder")
    far.ask("adopt", pid=stranger.pid)
    far.ask("end")
    far.leave()
    with pytest.raises(subprocess.TimeoutExpired):
        stranger.wait(0.2)


def test_what_killed_runs_left_is_removed(folder):
    killed = Far(folder)
    incoming = killed.hello["result"]["scratch"].replace(".run-", ".incoming-")
    killed.process.kill()
    killed.leave()
    Path(incoming).mkdir()
    assert len(list(folder.iterdir())) == 2
    alive = Far(folder)
    Far(folder).leave()
    assert [str(path) for path in folder.iterdir()] == [alive.hello["result"]["scratch"]]
    alive.leave()


def aged(folder: Path, digit: str, age_s: float, size_bytes: int = 1) -> Path:
    path = folder / (digit * 64)
    path.mkdir()
    with (path / "model").open("wb") as stream:
        stream.truncate(size_bytes)  # a hole: it takes no room
    time_s = path.stat().st_mtime - age_s
    os.utime(path, (time_s, time_s))
    return path


def test_old_files_are_pruned_and_others_are_not(tmp_path):
    old, young = aged(tmp_path, "a", KEPT_S + 60), aged(tmp_path, "b", KEPT_S - 3600)
    foreign = tmp_path / "notes"
    foreign.mkdir()
    os.utime(foreign, (0, 0))
    prune(tmp_path)
    assert not old.exists()
    assert young.exists()
    assert foreign.exists()


def test_too_many_files_are_pruned_the_longest_unused_first(tmp_path):
    half = KEPT_BYTES // 2
    first, second = aged(tmp_path, "a", 9000, half), aged(tmp_path, "b", 8000, half)
    prune(tmp_path)
    assert first.exists()  # exactly as much as is kept
    third = aged(tmp_path, "c", 100, 1)
    prune(tmp_path)
    assert not first.exists()
    assert second.exists()
    assert third.exists()
    aged(tmp_path, "d", 50, KEPT_BYTES)
    prune(tmp_path)
    assert third.exists()  # used a moment ago, maybe still


def test_an_old_interpreter_can_read_it():
    """So that Python 3.8 there says its version instead of a syntax error."""
    for name, source in ssh_link.far_sources():
        ast.parse(source, name, feature_version=(3, 8))


def test_the_runner_needs_no_newer_python_than_it_is_said():
    for entry in files("targets.runner").iterdir():
        if entry.name.endswith(".py"):
            ast.parse(entry.read_text(), entry.name, feature_version=ssh_link.MIN_PYTHON)


@pytest.mark.parametrize(
    ("path", "quoted"),
    [("python3", "python3"), ("/a b/py", "'/a b/py'"), ("~/a b/py", "\"$HOME\"/'a b/py'")],
)
def test_paths_are_quoted_for_the_shell(path, quoted):
    assert ssh_link.quote_path(path) == quoted
