"""The runner on an SSH device: JSON lines over a channel, and its clean end."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import shlex
from collections import deque
from collections.abc import Sequence

import asyncssh

from targets.devices import ssh_loop
from targets.devices.lines import EXIT_LINE, EXIT_S, LineTalk
from targets.devices.process import OUT_OF_MEMORY_HINT
from targets.devices.ssh_link import Link, Process, quote_path
from targets.errors import RunnerCrashedError

_PID_MARK = b"embedding-runner-pid "
_START = 'cd "$1" && echo embedding-runner-pid $$ && shift && exec "$@"'
"""The shell becomes the runner, so its process id is the runner's."""
_START_S = 60.0
_SEND_S = 60.0


class RemoteLines(LineTalk):
    """One runner at the far end of a link, which it does not outlive.

    Args:
        link: an open connection; the runner's only one.
        arguments: what Python there runs.

    Raises:
        RunnerCrashedError: it did not start.
    """

    def __init__(self, link: Link, arguments: Sequence[str]) -> None:
        super().__init__()
        self._link = link
        self._ended = False
        self._process = link.start(_command(link, arguments))
        try:
            self._pid = ssh_loop.run(_read_pid(self._process), _START_S)
        except (asyncssh.Error, OSError, EOFError) as error:
            raise link.lost_error("start", str(error)) from error
        link.ask("adopt", pid=self._pid)
        self._pumps = ssh_loop.run(_start_pumps(self._process, self._messages, self._stderr))

    @property
    def pid(self) -> int:
        """Process id there."""
        return self._pid

    def close(self) -> None:
        """Ask the runner to leave, wait a moment, then insist. Never raises."""
        if not self._has_ended():
            with contextlib.suppress(OSError):
                self._write(EXIT_LINE)
        self._end(EXIT_S)

    def _has_ended(self) -> bool:
        return self._ended

    def _write(self, line: bytes) -> None:
        try:
            ssh_loop.run(_send(self._process, line), _SEND_S)
        except (asyncssh.Error, OSError) as error:
            raise BrokenPipeError(str(error)) from error

    def _end(self, grace_s: float) -> None:
        """Close the runner's stdin, have it killed if it stays, read what it still says."""
        already, self._ended = self._ended, True
        if already:
            return
        if not ssh_loop.run(_leaves(self._process, grace_s)):
            with contextlib.suppress(RunnerCrashedError):
                self._link.ask("end")
            if not ssh_loop.run(_leaves(self._process, EXIT_S)):
                self._link.abort()
        ssh_loop.run(_finish(self._pumps))

    def _how_it_ended(self) -> tuple[str, str]:
        if self._process.exit_signal is not None:
            name = str(self._process.exit_signal[0])
            killed = name == "KILL"
            oom = " — often the kernel's out-of-memory killer" if killed else ""
            return f"killed by SIG{name}{oom}", OUT_OF_MEMORY_HINT if killed else ""
        if self._process.exit_status is not None:
            return f"exit code {self._process.exit_status}", ""
        return (
            f"the connection was lost ({self._link.lost or 'no reason given'})",
            "look at the device and its network; the next start connects anew",
        )


def _command(link: Link, arguments: Sequence[str]) -> str:
    python = f"{quote_path(link.address.python)} -E -B -X utf8"  # -B: nothing beside the adapter
    script = f"/bin/sh -c {shlex.quote(_START)} sh {shlex.quote(link.scratch)}"
    return f"exec {script} {python} {shlex.join(arguments)}"


async def _read_pid(process: Process) -> int:
    """Read the process id, behind whatever the login shell prints."""
    while line := await process.stdout.readline():
        if line.startswith(_PID_MARK):
            return int(line[len(_PID_MARK) :])
    raise EOFError((await process.stderr.read()).decode(errors="replace").strip())


async def _start_pumps(
    process: Process, messages: queue.SimpleQueue[bytes | None], stderr: deque[str]
) -> tuple[asyncio.Task[None], ...]:
    return (
        asyncio.create_task(_pump_messages(process, messages)),
        asyncio.create_task(_pump_stderr(process, stderr)),
    )


async def _pump_messages(process: Process, messages: queue.SimpleQueue[bytes | None]) -> None:
    try:
        while line := await process.stdout.readline():
            messages.put(line)
    except (asyncssh.Error, OSError, EOFError):
        pass
    finally:
        messages.put(None)


async def _pump_stderr(process: Process, lines: deque[str]) -> None:
    with contextlib.suppress(asyncssh.Error, OSError, EOFError):
        while line := await process.stderr.readline():
            lines.append(line.decode(errors="replace").rstrip())


async def _send(process: Process, line: bytes) -> None:
    process.stdin.write(line)
    await process.stdin.drain()


async def _leaves(process: Process, grace_s: float) -> bool:
    """Close stdin and say whether the runner has gone after a while."""
    with contextlib.suppress(OSError):
        process.stdin.write_eof()
    try:
        await asyncio.wait_for(process.wait_closed(), grace_s)
    except TimeoutError:
        return False
    return True


async def _finish(pumps: Sequence[asyncio.Task[None]]) -> None:
    """Let what has arrived be read; a lost connection may leave a reader waiting."""
    _, waiting = await asyncio.wait(pumps, timeout=EXIT_S)
    for pump in waiting:
        pump.cancel()
