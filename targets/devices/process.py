"""A child process that answers JSON lines: requests, time limits, a clean end."""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import subprocess
import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from targets.contract import Progress, no_progress
from targets.errors import DeviceError, RunnerCrashedError

_KEPT_STDERR_LINES = 40
_EXIT_S = 10.0
_OUT_OF_MEMORY_HINT = "free memory, or use smaller batches"


class RunnerAnswerError(Exception):
    """The child answered a request with an error; never leaves this package.

    Args:
        kind: what went wrong, by the runner's names.
        message: one line.
        subject: a package or file, or "".
    """

    def __init__(self, kind: str, message: str, subject: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.subject = subject


class LineProcess:
    """One child, one request at a time.

    The child has a session of its own, so that Ctrl-C reaches only this process, which
    then ends the child. The child ends itself when its stdin closes. Whatever interrupts
    a request ends the child: its answer would be taken for the next request's.
    """

    def __init__(self, command: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> None:
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
        self._messages: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._stderr: deque[str] = deque(maxlen=_KEPT_STDERR_LINES)
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

    def request(
        self, message: Mapping[str, Any], silence_s: float, progress: Progress = no_progress
    ) -> dict[str, Any]:
        """Send one message and wait for its result.

        Args:
            message: a JSON object with "command".
            silence_s: the child is ended when it says nothing for this long.
            progress: called with what the child reports in between.

        Returns:
            The child's result.

        Raises:
            RunnerAnswerError: if the child answered with an error.
            RunnerCrashedError: if it died, was ended, or stayed silent.
        """
        try:
            self._send(message)
            return self._receive(str(message["command"]), silence_s, progress)
        except RunnerAnswerError:
            raise
        except BaseException:
            self._end(0.0)
            raise

    def _send(self, message: Mapping[str, Any]) -> None:
        if self._process.stdin is None or self._process.stdin.closed:
            raise RunnerCrashedError("the runner has been ended", why=self._last_words())
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._crash(str(message["command"])) from error

    def _receive(self, command: str, silence_s: float, progress: Progress) -> dict[str, Any]:
        while True:
            match self._next_message(command, silence_s):
                case {"result": dict(result)}:
                    return result
                case {"progress": {"done": int(done), "total": total}}:
                    progress(done, total)
                case {"error": {"kind": kind, "message": text, "subject": subject}}:
                    raise RunnerAnswerError(kind, text, subject)
                case other:
                    raise RunnerCrashedError(
                        f"the runner answered {command!r} with something else",
                        why=str(other)[:200],
                    )

    def _next_message(self, command: str, silence_s: float) -> object:
        try:
            line = self._messages.get(timeout=silence_s)
        except queue.Empty:
            raise self._silence(command, silence_s) from None
        if line is None:
            raise self._crash(command)
        try:
            message: object = json.loads(line)
        except ValueError:
            message = line
        return message

    def _silence(self, command: str, silence_s: float) -> RunnerCrashedError:
        self._end(0.0)
        return RunnerCrashedError(
            f"the runner said nothing for {silence_s:g} s during {command!r} and was ended",
            why=self._last_words(),
            hint="give the device a longer limit, or look for what keeps the machine busy",
        )

    def _crash(self, command: str) -> RunnerCrashedError:
        self._end(_EXIT_S)
        how = describe_exit(self._process.returncode)
        return RunnerCrashedError(
            f"the runner ended during {command!r}: {how}",
            why=self._last_words() or "it wrote nothing to stderr",
            hint="" if self._process.returncode != -signal.SIGKILL else _OUT_OF_MEMORY_HINT,
        )

    def _last_words(self) -> str:
        return "\n".join(self._stderr)

    def close(self) -> None:
        """Ask the child to leave, wait a moment, then insist. Never raises."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            with contextlib.suppress(OSError):
                self._process.stdin.write(b'{"command": "exit"}\n')
                self._process.stdin.flush()
        self._end(_EXIT_S)

    def _end(self, grace_s: float) -> None:
        """Close the child's stdin, reap it, and let the readers reach the end."""
        _close_stdin(self._process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_s)
        self._finalizer()
        for reader in self._readers:
            reader.join(_EXIT_S)


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
