"""The runner beside this program, which must not outlive the connection."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from pathlib import Path

_LEAVE_S = 2.0
_LOOK_EVERY_S = 0.02


def is_running(pid: int) -> bool:
    """Say whether a process exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


def wait_for_end(pid: int, scratch: Path) -> None:
    """Give a runner that lost its caller a moment to leave by itself."""
    until_s = time.monotonic() + _LEAVE_S
    while is_runner(pid, scratch) and time.monotonic() < until_s:
        select.select([], [], [], _LOOK_EVERY_S)  # it is not our child: nothing tells its end


def kill_runner(pid: int, scratch: Path) -> None:
    """End the runner, if the process of that number still is it."""
    if is_runner(pid, scratch):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def is_runner(pid: int, scratch: Path) -> bool:
    """Say whether a process runs and, where the system tells, was started for `scratch`."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return not Path("/proc/self").exists() and is_running(pid)
    return os.fsencode(scratch) in command
