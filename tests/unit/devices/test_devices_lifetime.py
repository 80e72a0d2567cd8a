"""What must never be left behind: orphans, zombies, files, answers to other requests."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from targets.contract import Batching, TokenSequences
from targets.devices.local import LocalDevice
from targets.errors import DeviceError, RunnerCrashedError, RunnerFailedError, StorageError

POISONED = TokenSequences.from_lists([[5, 1000, 6]], 1)
ROOT = Path(__file__).parents[3]


def has_ended(process_fd: int, seconds: float = 20.0) -> bool:
    """Wait for a process that need not be our child."""
    poller = select.poll()
    poller.register(process_fd, select.POLLIN)
    return bool(poller.poll(seconds * 1000))


@pytest.fixture
def scratch_root(tmp_path, monkeypatch):
    root = tmp_path / "scratch"
    root.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(root))
    return root


@pytest.mark.parametrize(
    ("poison", "said"),
    [
        ("abort", "killed by SIGABRT"),
        ("kill", "killed by SIGKILL — often the kernel's out-of-memory killer"),
        ("exit", "exit code 3"),
    ],
)
def test_a_crash_is_told_with_its_signal(start, poison, said):
    runner = start(options={"poison": poison})
    with pytest.raises(RunnerCrashedError, match=f"'embed': {said}"):
        runner.embed(POISONED)


def test_a_crash_carries_the_last_lines_of_stderr(start):
    runner = start(options={"poison": "abort"})
    with pytest.raises(RunnerCrashedError) as caught:
        runner.embed(POISONED)
    assert "assertion failed: blocks > 0" in caught.value.why
    assert "numpy_adapter.py" in caught.value.why  # where in Python it happened


def test_after_a_crash_every_request_says_so(start, texts):
    runner = start(options={"poison": "kill"})
    with pytest.raises(RunnerCrashedError):
        runner.embed(POISONED)
    with pytest.raises(RunnerCrashedError, match="has been ended"):
        runner.embed(texts)
    runner.close()


def test_a_crash_while_loading_leaves_nothing(start, scratch_root):
    with pytest.raises(RunnerCrashedError, match="'load': killed by SIGABRT"):
        start(options={"at_load": "abort"})
    assert list(scratch_root.iterdir()) == []


def test_silence_ends_the_runner(start):
    with pytest.raises(RunnerCrashedError, match=r"said nothing for 0\.4 s during 'load'"):
        start(device=LocalDevice(silence_s=0.4), options={"at_load": "hang"})


@pytest.mark.parametrize("when", ["at_load", "poison"])
def test_prints_of_a_runtime_do_not_reach_the_caller(start, expected, when):
    rows = start(options={when: "noise"}).embed(POISONED)
    np.testing.assert_allclose(rows, expected(POISONED), rtol=1e-5, atol=1e-6)


def test_a_runtime_that_reads_stdin_finds_it_empty(start, expected):
    runner = start(options={"poison": "read"})
    for _ in range(2):
        np.testing.assert_allclose(runner.embed(POISONED), expected(POISONED), atol=1e-6)


@pytest.mark.parametrize("name", ["model", "adapter"])
def test_a_missing_file_is_named(start, tmp_path, name):
    with pytest.raises(RunnerFailedError, match=r"no file .*absent\.xml"):
        start(**{name: tmp_path / "absent.xml"})


def test_a_runtime_that_is_not_installed_is_named(start):
    with pytest.raises(RunnerFailedError, match="cannot import a_runtime_nobody_has") as caught:
        start(options={"at_load": "import"})
    assert "install a_runtime_nobody_has" in caught.value.hint


@pytest.mark.parametrize(
    ("source", "said"), [("x = 1\n", "defines no open_session"), ("def broken(:\n", "SyntaxError")]
)
def test_an_adapter_that_is_none_is_refused(start, tmp_path, source, said):
    adapter = tmp_path / "adapter.py"
    adapter.write_text(source)
    with pytest.raises(RunnerFailedError, match=said):
        start(adapter=adapter)


def test_an_exception_while_loading_is_an_error_by_name(start):
    with pytest.raises(RunnerFailedError, match=r"ValueError while loading table\.npy"):
        start(options={"at_load": "raise"})


def test_runners_side_by_side_do_not_mix(start, texts, expected):
    runners = [start(), start()]
    halves = [texts.select(range(15)), texts.select(range(15, 30))]
    for _ in range(2):
        for runner, half in zip(runners, halves, strict=True):
            np.testing.assert_allclose(runner.embed(half), expected(half), rtol=1e-5, atol=1e-6)
    runners[0].close()
    assert runners[1].embed(texts).shape == (30, 6)


def test_close_leaves_no_process_and_no_file(start, texts, scratch_root, tmp_path):
    closed = tmp_path / "closed"
    runner = start(options={"closed": str(closed)})
    runner.embed(texts)
    assert list(scratch_root.iterdir()) != []
    runner.close()
    runner.close()
    assert closed.exists()  # the session was closed in good order
    assert list(scratch_root.iterdir()) == []
    with pytest.raises(ChildProcessError):
        os.waitpid(runner.pid, os.WNOHANG)  # reaped: no zombie is left
    with pytest.raises(RunnerCrashedError, match="has been ended"):
        runner.info()


def test_a_context_manager_closes(make_plan, scratch_root):
    with LocalDevice().start(make_plan(), 1) as runner:
        assert runner.info().load_s > 0
    assert list(scratch_root.iterdir()) == []


def test_a_runner_that_is_dropped_ends(make_plan, scratch_root):
    runner = LocalDevice().start(make_plan(), 1)
    process_fd = os.pidfd_open(runner.pid)
    del runner
    assert has_ended(process_fd)
    os.close(process_fd)
    assert list(scratch_root.iterdir()) == []


def test_an_interrupt_ends_the_runner(start, texts):
    """An answer that nobody waited for must not be taken for the next one's."""
    runner = start()

    def interrupt(done, total=None):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner.embed(texts, Batching(max_batch=1), interrupt)
    with pytest.raises(RunnerCrashedError, match="has been ended"):
        runner.info()


def test_control_c_is_the_callers_to_act_on(start, texts):
    runner = start()
    assert os.getpgid(runner.pid) != os.getpgid(0)  # the terminal's signal does not reach it
    os.kill(runner.pid, signal.SIGINT)
    assert runner.embed(texts).shape == (30, 6)


PARENT = """
import os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from targets.contract import RunPlan, TokenSequences
from targets.devices.local import LocalDevice
plan = RunPlan(
    adapter=Path(sys.argv[2]), model=Path(sys.argv[3]), inputs=("input_ids", "attention_mask"),
    output="sentence_embedding", pad_token_id=1, embedding_dim=6, max_seq_length=40,
    options={"poison": "hang", "log": sys.argv[4]},
)
runner = LocalDevice().start(plan, 1)
print(runner.pid, flush=True)
sys.stdin.readline()
runner.embed(TokenSequences.from_lists([[5, 1000, 6]], 1))
"""


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_a_runner_never_outlives_its_caller(make_plan, scratch_root, busy, tmp_path):
    plan, log = make_plan(), tmp_path / "log"
    os.mkfifo(log)
    log_fd = os.open(log, os.O_RDWR)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(ROOT), str(plan.adapter), str(plan.model), str(log)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(scratch_root)},
    )
    with parent:
        process_fd = os.pidfd_open(int(parent.stdout.readline()))
        os.read(log_fd, 4096)  # the first call, made while loading
        if busy:
            parent.stdin.write(b"\n")
            parent.stdin.flush()
            assert os.read(log_fd, 4096)  # it runs now, and will hang
        assert not has_ended(process_fd, 0)
        parent.kill()
        assert has_ended(process_fd)
    os.close(process_fd)
    os.close(log_fd)
    assert list(scratch_root.iterdir()) == []


def test_a_result_that_cannot_be_written_is_a_storage_error(start, texts, scratch_root):
    runner = start()
    runner.embed(texts)
    (scratch,) = scratch_root.iterdir()
    output = scratch / "embeddings.npy"
    output.mkdir()
    with pytest.raises(StorageError, match="cannot be written"):
        runner.embed(texts)
    output.rmdir()
    assert runner.embed(texts).shape == (30, 6)


def test_no_room_for_scratch_is_a_storage_error(start, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with pytest.raises(StorageError, match="folder for the runner's files"):
        start()


def test_an_interpreter_that_cannot_be_started_is_a_device_error(start, scratch_root, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/absent/python")
    with pytest.raises(DeviceError, match="/absent/python"):
        start()
    assert list(scratch_root.iterdir()) == []
