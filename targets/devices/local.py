"""This machine: the runner as a child process with its threads pinned."""

from __future__ import annotations

import os
import shutil
import site
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from targets.contract import Hardware, RunPlan
from targets.devices.archive import build_runner_archive
from targets.devices.client import RunnerClient
from targets.devices.process import LineProcess
from targets.errors import StorageError

DEFAULT_SILENCE_S = 900.0


class LocalDevice:
    """The machine this program runs on (the contract's `Device`).

    Args:
        name: what reports call it.
        environment: variables set for the runner beside the caller's own.
        silence_s: a runner that says nothing for this long is ended.
        warnings: what every runner says of itself beside what it finds out.
    """

    measures_latency: bool = True

    def __init__(
        self,
        name: str = "local",
        *,
        environment: Mapping[str, str] | None = None,
        silence_s: float = DEFAULT_SILENCE_S,
        warnings: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self._environment = dict(environment or {})
        self._silence_s = silence_s
        self._warnings = warnings

    def hardware(self) -> Hardware:
        """Detect what this machine is."""
        from targets.hardware.detect import detect_hardware

        return detect_hardware()

    def distributions(self, names: Sequence[str]) -> dict[str, str]:
        """Return the versions of those distributions that are installed here."""
        found = {}
        for name in names:
            with suppress(PackageNotFoundError):
                found[name] = version(name)
        return found

    def start(self, plan: RunPlan, num_threads: int) -> RunnerClient:
        """Start a runner of its own for one artifact and load it.

        Args:
            plan: what to load.
            num_threads: CPU threads, pinned to as many CPUs; at least 1.

        Returns:
            The runner; a context manager, to be closed by the caller.

        Raises:
            ValueError: if `num_threads` is not positive.
            RunnerFailedError: if the artifact cannot be loaded.
            RunnerCrashedError: if the runner died.
        """
        if num_threads < 1:
            raise ValueError(f"num_threads must be at least 1, not {num_threads}")
        runner = self._start_process(f"{self.name} runner for {plan.model.name}", num_threads)
        try:
            runner.load(plan)
        except BaseException:
            runner.close()
            raise
        return runner

    def _start_process(self, name: str, num_threads: int) -> RunnerClient:
        scratch = make_scratch()
        try:
            archive = pack_runner(scratch)
            command = [
                *_python(),
                str(archive),
                f"--num-threads={num_threads}",
                f"--scratch={scratch}",
            ]
            process = LineProcess(command, scratch, os.environ | self._environment)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        return RunnerClient(process, scratch, name, self._silence_s, self._warnings)


def _python() -> tuple[str, ...]:
    """This interpreter, deaf to PYTHON* variables but with the same installed packages.

    `-I` would hide packages of the user's own site folder, where this process may see them.
    """
    isolation = ("-E", "-P") if site.ENABLE_USER_SITE else ("-I",)
    return (sys.executable, *isolation, "-X", "utf8")


def make_scratch() -> Path:
    """Make a folder for one runner's files.

    Raises:
        StorageError: it cannot be made.
    """
    try:
        return Path(tempfile.mkdtemp(prefix="embedding-runner-"))
    except OSError as error:
        raise _no_scratch(error) from error


def pack_runner(scratch: Path) -> Path:
    """Pack the runner into a file of that folder.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        return build_runner_archive(scratch / "runner.pyz")
    except OSError as error:
        raise _no_scratch(error) from error


def _no_scratch(error: OSError) -> StorageError:
    return StorageError(
        "the folder for the runner's files cannot be written",
        why=str(error),
        hint="free space, or point TMPDIR to another folder",
    )
