"""A runner on another machine: the same numbers, files pushed once, nothing left behind."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from ssh_server import HOST, run_asyncssh, user_name

from targets.contract import Workload
from targets.devices.local import LocalDevice
from targets.devices.ssh import SshDevice
from targets.errors import NonFiniteError, RunnerCrashedError, RunnerFailedError, StorageError
from targets.hardware.detect import detect_hardware

ROOT = Path(__file__).parents[3]


def pushed(far: Path) -> dict[str, int]:
    """Name → when a lasting file was written."""
    return {path.name: path.stat().st_mtime_ns for path in far.glob("[0-9a-f]*/*")}


def test_embeddings_are_those_of_this_machine_bit_for_bit(open_device, start, plan, texts):
    rows = start(open_device()).embed(texts)
    with LocalDevice().start(plan, 1) as local:
        np.testing.assert_array_equal(rows, local.embed(texts))


def test_latency_is_taken_there(open_device, start, texts):
    runner = start(open_device())
    shape = Workload(name="shape", kind="shape", batch_size=2, sequence_length=16)
    singles = Workload(name="single", kind="single", tokens=texts)
    assert runner.time(shape, passes=4, warmup=1).shape == (4,)
    assert runner.time(singles, passes=2).shape == (60,)
    assert runner.time(shape, passes=3).shape == (3,)  # no earlier result is read again


def test_what_the_device_is(open_device):
    device = open_device()
    assert device.hardware().fingerprint == detect_hardware().fingerprint
    assert device.hardware().architecture == platform.machine()
    found = device.distributions(["NumPy", "numpy", "a-runtime-nobody-has"])
    assert found == {"NumPy": version("numpy"), "numpy": version("numpy")}


def test_a_model_finds_its_siblings(open_device, start, plan, texts):
    shutil.copyfile(plan.model, plan.model.with_suffix(".bin"))
    adapter = plan.model.parent.parent / "sibling_adapter.py"
    adapter.write_text(
        plan.adapter.read_text().replace("load(model,", "load(f'{model}'[:-3]+'bin',")
    )
    beside = start(open_device(), adapter=adapter).embed(texts)
    np.testing.assert_array_equal(beside, start(open_device()).embed(texts))
    plan.model.with_suffix(".bin").unlink()
    with pytest.raises(RunnerFailedError, match=r"table\.bin"):
        start(open_device(), adapter=adapter)


def test_an_adapter_s_parts_travel_with_it_and_nothing_else_does(
    open_device, start, plan, far, texts, tmp_path
):
    folder = tmp_path / "adapter"
    folder.mkdir()
    shutil.copyfile(plan.adapter, folder / "part.py")
    (folder / "stranger.py").touch()
    (folder / "session.py").write_text(
        "from pathlib import Path\n"
        "from runpy import run_path\n"
        "open_session = run_path(str(Path(__file__).with_name('part.py')))['open_session']\n"
    )
    whole = {"adapter": folder / "session.py", "adapter_parts": ("part.py",)}
    rows = start(open_device(), **whole).embed(texts)
    np.testing.assert_array_equal(rows, start(open_device()).embed(texts))
    (there,) = far.glob("*/session.py")
    assert {path.name for path in there.parent.iterdir()} == {"session.py", "part.py"}
    (folder / "part.py").unlink()
    with pytest.raises(RunnerFailedError, match="part"):
        start(open_device(), **whole)


def test_files_are_pushed_once(open_device, start, plan, far, texts, cable):
    np.save(plan.model, np.random.default_rng(1).normal(size=(50_000, 6)).astype("f4"))
    sent_bytes = []
    for _ in range(2):
        before_bytes = cable.sent_bytes
        start(open_device(port=cable.port)).embed(texts)
        sent_bytes.append(cable.sent_bytes - before_bytes)
    assert sorted(pushed(far)) == ["numpy_adapter.py", "runner.pyz", "table.npy"]
    assert sent_bytes[0] > plan.model.stat().st_size
    assert sent_bytes[1] < 100_000


def test_a_file_that_was_tampered_with_is_pushed_again(open_device, start, far, plan, texts):
    expected = start(open_device()).embed(texts)
    before = pushed(far)
    (there,) = far.glob("*/table.npy")
    data = bytearray(there.read_bytes())
    data[-5] ^= 0xFF
    there.write_bytes(data)
    np.testing.assert_array_equal(start(open_device()).embed(texts), expected)
    (again,) = far.glob("*/table.npy")
    assert again.read_bytes() == plan.model.read_bytes()
    after = pushed(far)
    assert after.pop("table.npy") != before.pop("table.npy")
    assert after == before


def test_a_changed_model_is_pushed_beside_the_old_one(open_device, start, far, plan, texts):
    first = start(open_device()).embed(texts)
    np.save(plan.model, np.load(plan.model, allow_pickle=False) * 2)
    np.testing.assert_array_equal(start(open_device()).embed(texts), first * 2)
    assert len(list(far.glob("*/table.npy"))) == 2


def test_two_runners_at_once(open_device, start, texts):
    with ThreadPoolExecutor() as threads:  # as a pipeline loads them
        runners = list(threads.map(start, [open_device()] * 2))
    halves = [texts.select(range(15)), texts.select(range(15, 30))]
    rows = [runner.embed(half) for runner, half in zip(runners, halves, strict=True)]
    runners[0].close()
    np.testing.assert_array_equal(np.concatenate(rows), runners[1].embed(texts))


def test_close_leaves_nothing(open_device, start, texts, far, scratch_root, ends):
    runner = start(open_device())
    runner.embed(texts)
    process_fd = os.pidfd_open(runner.pid)
    assert list(far.glob(".run-*/tokens-*"))
    runner.close()
    runner.close()
    assert ends(process_fd, 0)
    os.close(process_fd)
    assert list(far.glob(".*")) == []
    assert list(scratch_root.iterdir()) == []
    with pytest.raises(RunnerCrashedError, match="has been ended"):
        runner.info()


def test_a_connection_that_drops_is_told_and_ends_the_runner(
    open_device, start, texts, far, cable, ends
):
    device = open_device(port=cable.port)
    runner = start(device)
    expected = runner.embed(texts)
    process_fd = os.pidfd_open(runner.pid)
    assert not ends(process_fd, 0)
    cable.cut()
    with pytest.raises(RunnerCrashedError, match="the connection was lost") as caught:
        runner.embed(texts.select(range(3)))
    assert device.name in caught.value.what
    assert ends(process_fd)
    os.close(process_fd)
    np.testing.assert_array_equal(start(device).embed(texts), expected)  # connects anew


def test_a_drop_in_the_middle_of_a_request(open_device, start, poisoned, cable, tmp_path, ends):
    log = tmp_path / "log"
    os.mkfifo(log)
    log_fd = os.open(log, os.O_RDWR)
    device = open_device(port=cable.port)
    runner = start(device, options={"poison": "hang", "log": str(log)})
    process_fd = os.pidfd_open(runner.pid)
    os.read(log_fd, 4096)  # the first call, made while loading
    waiter = threading.Thread(target=lambda: (os.read(log_fd, 4096), cable.cut()))
    waiter.start()
    with pytest.raises(RunnerCrashedError, match="'embed': the connection was lost") as caught:
        runner.embed(poisoned)
    waiter.join()
    assert device.name in caught.value.what
    assert ends(process_fd)
    os.close(process_fd)
    os.close(log_fd)


def test_a_device_that_falls_silent_is_given_up(open_device, start, texts, cable, monkeypatch):
    monkeypatch.setattr("targets.devices.ssh_connect.KEEPALIVE_S", 0.3)
    device = open_device(port=cable.port)
    runner = start(device)
    assert runner.embed(texts).shape == (30, 6)
    cable.stall()
    with pytest.raises(RunnerCrashedError, match="'info': the connection was lost") as caught:
        runner.info()
    assert "keepalive" in caught.value.what


@pytest.mark.parametrize(
    ("poison", "said"), [("abort", "killed by SIGABRT"), ("exit", "exit code 3")]
)
def test_a_crash_there_is_told(open_device, start, poisoned, poison, said):
    runner = start(open_device(), options={"poison": poison})
    with pytest.raises(RunnerCrashedError, match=f"'embed': {said}") as caught:
        runner.embed(poisoned)
    assert (poison == "abort") == ("assertion failed: blocks > 0" in caught.value.why)


@pytest.mark.parametrize("stopped", [False, True], ids=["hangs", "cannot-even-leave"])
def test_silence_ends_the_runner_there(open_device, start, poisoned, ends, stopped):
    runner = start(open_device(silence_s=1.0), options={"poison": "hang"})
    process_fd = os.pidfd_open(runner.pid)
    if stopped:
        os.kill(runner.pid, signal.SIGSTOP)
    with pytest.raises(RunnerCrashedError, match="said nothing for 1 s"):
        runner.embed(poisoned)
    assert ends(process_fd, 0)
    os.close(process_fd)


def test_rows_that_are_not_finite_are_named(open_device, start, poisoned):
    device = open_device()
    with pytest.raises(NonFiniteError, match=r"1 of 1 .*\(texts 0\)") as caught:
        start(device, options={"poison": "nan"}).embed(poisoned)
    assert device.name in caught.value.what


def test_a_full_disk_there_is_told_and_the_runner_goes_on(open_device, start, texts, far):
    device = open_device()
    runner = start(device)
    (scratch,) = far.glob(".run-*")
    tokens = scratch / f"tokens-{texts.sha256[:16]}.npz"
    tokens.symlink_to("/dev/full")
    with pytest.raises(StorageError, match="No space left on device") as caught:
        runner.embed(texts)
    assert device.name in caught.value.what
    tokens.unlink()
    assert runner.embed(texts).shape == (30, 6)


def test_a_full_disk_while_pushing_leaves_nothing(open_device, start, plan, far, scratch_root):
    far.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(far)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only root can mount a small file system")
    try:
        np.save(plan.model, np.zeros((200_000, 6), np.float32))
        with pytest.raises(StorageError, match=r"No space left on device in .* MB free"):
            start(open_device())
        assert [path.name for path in far.glob("*/*") if "table" in path.name] == []
        assert list(far.glob(".*")) == []
        assert list(scratch_root.iterdir()) == []
    finally:
        subprocess.run(["umount", str(far)], check=True)


PARENT = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from targets.contract import RunPlan, TokenSequences
from targets.devices.ssh import SshDevice
plan = RunPlan(
    adapter=Path(sys.argv[2]), model=Path(sys.argv[3]), inputs=("input_ids", "attention_mask"),
    output="sentence_embedding", pad_token_id=1, embedding_dim=6, max_seq_length=40,
    options={"poison": "hang", "log": sys.argv[4]},
)
device = SshDevice(sys.argv[5], known_hosts=Path(sys.argv[6]), client_keys=[Path(sys.argv[7])])
with device.start(plan, 1) as runner:
    print(runner.pid, flush=True)
    runner.embed(TokenSequences.from_lists([[5, 1000, 6]], 1))
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_runner_there_never_outlives_its_caller(
    open_device, server, plan, far, tmp_path, scratch_root, ends, sent
):
    log = tmp_path / "log"
    os.mkfifo(log)
    log_fd = os.open(log, os.O_RDWR)
    device = open_device()
    files = (plan.adapter, plan.model, log, device.name, tmp_path / "known_hosts", server.user_key)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(ROOT), *map(str, files)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(scratch_root)},
    )
    with parent:
        process_fd = os.pidfd_open(int(parent.stdout.readline()))
        os.read(log_fd, 4096)  # the first call, made while loading
        os.read(log_fd, 4096)  # the one that hangs
        (run,) = far.glob(".run-*")
        helper_fd = os.pidfd_open(int(run.name.split("-")[1]))
        assert not ends(process_fd, 0)
        parent.send_signal(sent)
        assert ends(process_fd)
        assert ends(helper_fd)
        said = parent.stderr.read().decode()
    for fd in (process_fd, helper_fd, log_fd):
        os.close(fd)
    assert list(far.glob(".*")) == []
    if sent == signal.SIGINT:
        assert "KeyboardInterrupt" in said
        assert list(scratch_root.iterdir()) == []


def test_a_login_shell_that_greets_does_not_disturb(keys, far, plan, texts, tmp_path):
    with run_asyncssh(keys, greeting="Welcome to {the} board") as server:
        device = SshDevice(
            f"ssh://{user_name()}@{HOST}:{server.port}{far}?python={sys.executable}",
            known_hosts=server.known_hosts(tmp_path / "known_hosts"),
            client_keys=[server.user_key],
        )
        with device.start(plan, 1) as runner, LocalDevice().start(plan, 1) as local:
            np.testing.assert_array_equal(runner.embed(texts), local.embed(texts))
            process_fd = os.pidfd_open(runner.pid)
        os.close(process_fd)
    assert list(far.glob(".*")) == []
