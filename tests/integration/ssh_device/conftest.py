"""A device behind a real SSH server whose far side is this machine, with this Python."""

from __future__ import annotations

import contextlib
import select
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("asyncssh", reason="pip install 'embedding-exporter[ssh]'")

from ssh_server import (
    HOST,
    Cable,
    Server,
    run_asyncssh,
    run_sshd,
    user_name,
    write_keys,
)

from targets.contract import RunPlan, TokenSequences
from targets.devices.client import RunnerClient
from targets.devices.ssh import SshDevice

ADAPTER = Path(__file__).parents[2] / "unit" / "devices" / "numpy_adapter.py"
DIM, PAD_ID = 6, 1


def pytest_itemcollected(item: pytest.Item) -> None:
    if Path(__file__).parent in item.path.parents:
        item.add_marker(pytest.mark.ssh)


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the keys host, user and stranger."""
    folder = tmp_path_factory.mktemp("keys")
    write_keys(folder)
    return folder


@pytest.fixture(scope="session")
def server(keys: Path) -> Iterator[Server]:
    """OpenSSH's server where there is one, else asyncssh's."""
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(run_sshd(keys))
        except RuntimeError as error:
            print(f"asyncssh serves: {error}", file=sys.stderr)
            found = stack.enter_context(run_asyncssh(keys))
        yield found


@pytest.fixture
def far(tmp_path: Path) -> Path:
    """The device's folder for lasting files."""
    return tmp_path / "far"


@pytest.fixture
def open_device(server: Server, far: Path, tmp_path: Path) -> Callable[..., SshDevice]:
    """Make a device; what a test does not name is right."""

    def make(
        *, port: int = 0, python: Path | str = sys.executable, host: str = HOST, **changes
    ) -> SshDevice:
        port = port or server.port
        options = {
            "known_hosts": server.known_hosts(tmp_path / "known_hosts", server.port, port),
            "client_keys": [server.user_key],
        }
        address = f"ssh://{user_name()}@{host}:{port}{far}?python={python}"
        return SshDevice(address, **(options | changes))

    return make


@pytest.fixture
def cable(server: Server) -> Iterator[Cable]:
    one = Cable(server.port)
    yield one
    one.close()


@pytest.fixture
def plan(tmp_path: Path) -> RunPlan:
    folder = tmp_path / "artifact"
    folder.mkdir()
    np.save(folder / "table.npy", np.random.default_rng(7).normal(size=(1024, DIM)).astype("f4"))
    return RunPlan(
        adapter=ADAPTER,
        model=folder / "table.npy",
        inputs=("input_ids", "attention_mask"),
        output="sentence_embedding",
        pad_token_id=PAD_ID,
        embedding_dim=DIM,
        max_seq_length=40,
    )


@pytest.fixture
def start(plan: RunPlan) -> Iterator[Callable[..., RunnerClient]]:
    """Start a runner; closed behind the test."""
    started: list[RunnerClient] = []

    def start_one(device: SshDevice, **changes) -> RunnerClient:
        started.append(device.start(replace(plan, **changes), 1))
        return started[-1]

    yield start_one
    for runner in started:
        runner.close()


@pytest.fixture
def scratch_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this machine's temporary folders go."""
    root = tmp_path / "scratch"
    root.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(root))
    return root


@pytest.fixture(scope="session")
def texts() -> TokenSequences:
    rng = np.random.default_rng(3)
    lengths = rng.integers(2, 41, 30)
    return TokenSequences.from_lists([rng.integers(5, 1000, n) for n in lengths], PAD_ID)


@pytest.fixture
def poisoned() -> TokenSequences:
    """A text at which the adapter does what its option `poison` says."""
    return TokenSequences.from_lists([[5, 1000, 6]], PAD_ID)


@pytest.fixture
def ends() -> Callable[[int], bool]:
    """Wait for a process that is not our child: pidfd → whether it ended in time."""

    def wait(process_fd: int, seconds: float = 20.0) -> bool:
        poller = select.poll()
        poller.register(process_fd, select.POLLIN)
        return bool(poller.poll(seconds * 1000))

    return wait
