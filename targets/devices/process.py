"""A child process that answers JSON lines, and its clean end."""

from __future__ import annotations

import contextlib
import queue
import signal
import subprocess
import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from targets.devices.lines import EXIT_LINE, EXIT_S, LineTalk
from targets.errors import DeviceError

OUT_OF_MEMORY_HINT = "free memory, or use smaller batches"


class LineProcess(LineTalk):
    """One child, one request at a time.

    The child has a session of its own, so that Ctrl-C reaches only this process, which
    then ends the child. The child ends itself when its stdin closes.
    """

    def __init__(self, command: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> None:
        super().__init__()
        try:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and archive
                list(command),
                cwd=cwd,
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise DeviceError(
                f"the runner could not be started with {command[0]}", why=str(error)
            ) from error
        self._process = process
        self._readers = (
            _start_thread(_read_messages, process.stdout, self._messages),
            _start_thread(_read_lines, process.stderr, self._stderr),
        )
        self._finalizer = weakref.finalize(self, _kill, process)

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the child can take a request."""
        return self._process.poll() is None

    def close(self) -> None:
        """Ask the child to leave, wait a moment, then insist. Never raises."""
        if not self._has_ended():
            with contextlib.suppress(OSError):
                self._write(EXIT_LINE)
        self._end(EXIT_S)

    def _has_ended(self) -> bool:
        return self._process.stdin is None or self._process.stdin.closed

    def _write(self, line: bytes) -> None:
        if self._process.stdin is not None:
            self._process.stdin.write(line)
            self._process.stdin.flush()

    def _how_it_ended(self) -> tuple[str, str]:
        killed = self._process.returncode == -signal.SIGKILL
        return describe_exit(self._process.returncode), OUT_OF_MEMORY_HINT if killed else ""

    def _end(self, grace_s: float) -> None:
        """Close the child's stdin, reap it, and let the readers reach the end."""
        _close_stdin(self._process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_s)
        self._finalizer()
        for reader in self._readers:
            reader.join(EXIT_S)


def describe_exit(returncode: int | None) -> str:
    """Name the exit code or the signal that ended a process."""
    if returncode is None or returncode >= 0:
        return f"exit code {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    oom = " — often the kernel's out-of-memory killer" if returncode == -signal.SIGKILL else ""
    return f"killed by {name}{oom}"


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Reap a child, also when its owner is dropped or the interpreter ends."""
    _close_stdin(process)
    if process.poll() is None:
        process.kill()
    process.wait()


def _close_stdin(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        with contextlib.suppress(OSError):  # a dead reader: what is held back cannot be flushed
            process.stdin.close()


def _start_thread(target: Callable[..., None], *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=target, args=arguments, daemon=True)
    thread.start()
    return thread


def _read_messages(stream: IO[bytes], messages: queue.SimpleQueue[bytes | None]) -> None:
    with stream:
        for line in stream:
            messages.put(line)
    messages.put(None)


def _read_lines(stream: IO[bytes], lines: deque[str]) -> None:
    with stream:
        lines.extend(line.decode(errors="replace").rstrip() for line in stream)
