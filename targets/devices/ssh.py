"""A device that is reached over SSH: the runner and its files travel there, results come back."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from targets.contract import Hardware, RunPlan
from targets.devices.client import RunnerClient
from targets.devices.local import DEFAULT_SILENCE_S, make_scratch, pack_runner
from targets.devices.ssh_address import parse_address
from targets.errors import DeviceError, NotInstalledError

if TYPE_CHECKING:
    from targets.devices.ssh_link import Link


class SshDevice:
    """Another machine with python3, numpy and a runtime (the contract's `Device`).

    Every runner has a connection of its own: one that is lost takes one runner with it, and the
    next start connects anew.

    Args:
        address: as `targets.devices.ssh_address` describes it; the device's name.
        known_hosts: file of trusted host keys; None: those of the user and the system.
        client_keys: key files; none: what ssh would use, and the agent's.
        silence_s: a runner that says nothing for this long is ended.

    Raises:
        ConfigError: the address is wrong.
        NotInstalledError: asyncssh is missing here.
    """

    measures_latency: bool = True

    def __init__(
        self,
        address: str,
        *,
        known_hosts: Path | None = None,
        client_keys: Sequence[Path] = (),
        silence_s: float = DEFAULT_SILENCE_S,
    ) -> None:
        self.name = address
        self._address = parse_address(address)
        self._known_hosts = known_hosts
        self._client_keys = tuple(client_keys)
        self._silence_s = silence_s
        self._open_link = _link_class()
        self._asking = threading.Lock()
        self._found: dict[str, Any] | None = None

    def hardware(self) -> Hardware:
        """Ask the device what it is; asked once.

        Raises:
            DeviceError: the device does not answer.
        """
        from targets.devices.ssh_facts import to_hardware

        return to_hardware(self._facts())

    def distributions(self, names: Sequence[str]) -> dict[str, str]:
        """Return the versions of those distributions that Python there can import.

        Raises:
            DeviceError: the device does not answer.
        """
        from targets.devices.ssh_facts import select_distributions

        return select_distributions(self._facts()["distributions"], tuple(names))

    def start(self, plan: RunPlan, num_threads: int) -> RunnerClient:
        """Push what the device lacks, start a runner there and load the artifact.

        Args:
            plan: what to load; all visible files of the model's folder travel.
            num_threads: CPU threads, pinned to as many CPUs; at least 1.

        Returns:
            The runner; a context manager, to be closed by the caller.

        Raises:
            ValueError: if `num_threads` is not positive.
            DeviceError: no connection, or Python or numpy are missing there.
            RunnerFailedError: if the artifact cannot be loaded.
            RunnerCrashedError: if the runner died or the connection was lost.
            StorageError: if the device cannot store the files.
        """
        if num_threads < 1:
            raise ValueError(f"num_threads must be at least 1, not {num_threads}")
        runner = self._start_process(f"{self.name} runner for {plan.model.name}", num_threads)
        try:
            info = runner.load(plan)
        except BaseException:
            runner.close()
            raise
        from targets.devices.ssh_facts import older_runtimes

        runner.warn(*older_runtimes(info.tool_versions))
        return runner

    def _start_process(self, name: str, num_threads: int) -> RunnerClient:
        from targets.devices.ssh_files import RemoteFiles
        from targets.devices.ssh_process import RemoteLines

        scratch = make_scratch()
        try:
            link = self._connect()
            try:
                self._require_numpy(link)
                files = RemoteFiles(link, scratch)
                archive = files.install(pack_runner(scratch))
                arguments = [archive, f"--num-threads={num_threads}", f"--scratch={link.scratch}"]
                process = RemoteLines(link, arguments)
            except BaseException:
                link.close()
                raise
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        return RunnerClient(
            process,
            scratch,
            name,
            self._silence_s,
            files=files,
            install_command=self._install_command,
        )

    def _connect(self) -> Link:
        return self._open_link(self._address, self._known_hosts, self._client_keys)

    def _facts(self) -> dict[str, Any]:
        with self._asking:
            if self._found is None:
                with closing(self._connect()) as link:
                    self._found = link.ask("probe")
            return self._found

    def _require_numpy(self, link: Link) -> None:
        if not link.hello["has_numpy"]:
            raise DeviceError(
                f"{self.name}: {self._address.python} there has no numpy",
                why="the runner needs python3, numpy and the target's runtime",
                hint=f"{self._install_command} numpy",
            )

    @property
    def _install_command(self) -> str:
        return f"ssh {self._address.login} {self._address.python} -m pip install"


def _link_class() -> Callable[..., Link]:
    """Import what needs asyncssh.

    Raises:
        NotInstalledError: it is missing.
    """
    try:
        from targets.devices.ssh_link import Link
    except ImportError as error:
        raise NotInstalledError(
            "devices over SSH need asyncssh",
            why=str(error),
            hint="pip install 'embedding-exporter[ssh]'",
        ) from error
    return Link
