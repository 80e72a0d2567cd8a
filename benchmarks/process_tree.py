"""How much memory the processes of a command take, read from Linux's /proc."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from targets.errors import UsageError

_POLL_S = 0.05
_PROC = Path("/proc")
_COMMAND_CHARACTERS = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A finished command.

    Args:
        exit_code: its exit code.
        wall_s: from start to end, in seconds.
        peak_rss_bytes: the highest resident memory of any single process of its tree.
        peak_command: command line of that process, shortened.
        num_processes: processes that were seen.
    """

    exit_code: int
    wall_s: float
    peak_rss_bytes: int
    peak_command: str
    num_processes: int


def watch(command: Sequence[str], environment: Mapping[str, str], stderr: Path) -> Watched:
    """Run a command and look at every process of its tree every 50 ms until it ends.

    Each look reads the kernel's own high-water mark (VmHWM in /proc/PID/status), so only
    what a process takes after the last look at it can be missed.

    Args:
        command: what to run.
        environment: its environment, whole.
        stderr: file that takes its stderr; its stdout is dropped.

    Raises:
        UsageError: this system has no /proc.
    """
    if not (_PROC / "self" / "status").is_file():
        raise UsageError("peak memory cannot be measured here", why="there is no /proc (Linux)")
    tree = _Tree()
    started_s = time.perf_counter()
    with (
        stderr.open("wb") as errors,
        subprocess.Popen(
            list(command), env=dict(environment), stdout=subprocess.DEVNULL, stderr=errors
        ) as process,
    ):
        tree.begin(process.pid)
        while _is_running(process):
            tree.look()
    wall_s = time.perf_counter() - started_s
    peak_bytes, peak_command = max(tree.peaks.values(), default=(0, ""))
    return Watched(
        exit_code=process.returncode,
        wall_s=wall_s,
        peak_rss_bytes=peak_bytes,
        peak_command=peak_command,
        num_processes=len(tree.peaks),
    )


class _Tree:
    """A process and everything that it started; each process is asked for its parent once."""

    def __init__(self) -> None:
        self.peaks: dict[int, tuple[int, str]] = {}
        self._members: set[int] = set()
        self._seen = _running_processes()

    def begin(self, root: int) -> None:
        """Follow a process that was started after this tree was made."""
        self._members = {root}

    def look(self) -> None:
        """Find new members and note what every member took at most so far."""
        running = _running_processes()
        for pid in sorted(running - self._seen):  # parents are older than their children
            if parent_of(pid) in self._members:
                self._members.add(pid)
        self._seen = running
        self._members &= running
        for pid in self._members:
            self._note(pid)

    def _note(self, pid: int) -> None:
        found_bytes = peak_rss_bytes(pid)
        if found_bytes > self.peaks.get(pid, (0, ""))[0]:
            self.peaks[pid] = (found_bytes, _command_line(pid))


def _running_processes() -> set[int]:
    return {int(name) for name in os.listdir(_PROC) if name.isdigit()}  # noqa: PTH208 - cheaper


def parent_of(pid: int) -> int | None:
    """Return a process's parent; None where it has ended."""
    return _status(pid, "PPid")


def peak_rss_bytes(pid: int) -> int:
    """Return the kernel's high-water mark of a process; 0 where it has ended."""
    return (_status(pid, "VmHWM") or 0) * 1024


def _status(pid: int, name: str) -> int | None:
    with suppress(OSError):  # it may end at any moment
        for line in (_PROC / str(pid) / "status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
    return None


def _is_running(process: subprocess.Popen[bytes]) -> bool:
    with suppress(subprocess.TimeoutExpired):
        process.wait(_POLL_S)
    return process.returncode is None


def _command_line(pid: int) -> str:
    with suppress(OSError):
        program, *words = (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
        # the program's folder says where this machine keeps things, which is nobody's business
        words.insert(0, program.rsplit(b"/", 1)[-1])
        return b" ".join(words).decode(errors="replace").strip()[:_COMMAND_CHARACTERS]
    return ""
