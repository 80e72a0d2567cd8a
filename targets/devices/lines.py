"""Talking to a runner in JSON lines: one request at a time, with a limit on silence."""

from __future__ import annotations

import json
import queue
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol

from targets.contract import Progress, no_progress
from targets.errors import RunnerCrashedError

EXIT_LINE = b'{"command": "exit"}\n'
EXIT_S = 10.0
"""How long a runner may take to leave by itself."""
_KEPT_STDERR_LINES = 40


class RunnerAnswerError(Exception):
    """The runner answered a request with an error; never leaves this package.

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


class RunnerProcess(Protocol):
    """A running runner, wherever it runs."""

    @property
    def pid(self) -> int:
        """Process id on the machine where it runs."""

    def request(
        self, message: Mapping[str, Any], silence_s: float, progress: Progress = no_progress
    ) -> dict[str, Any]:
        """Send one message and wait for its result."""

    def close(self) -> None:
        """End it; never raises."""


class LineTalk(ABC):
    """The caller's half of the conversation; how lines travel is a subclass's matter.

    A subclass puts what the runner writes into `_messages`, line by line and None at the end,
    and the lines of its stderr into `_stderr`.
    """

    def __init__(self) -> None:
        self._messages: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._stderr: deque[str] = deque(maxlen=_KEPT_STDERR_LINES)

    @abstractmethod
    def _has_ended(self) -> bool:
        """Whether nothing can be sent any more."""

    @abstractmethod
    def _write(self, line: bytes) -> None:
        """Send one line. Raises: BrokenPipeError: nobody reads."""

    @abstractmethod
    def _end(self, grace_s: float) -> None:
        """Let the runner leave within `grace_s`, then end it; what it wrote has arrived."""

    @abstractmethod
    def _how_it_ended(self) -> tuple[str, str]:
        """Say how an ended runner ended, and what to do about it."""

    def request(
        self, message: Mapping[str, Any], silence_s: float, progress: Progress = no_progress
    ) -> dict[str, Any]:
        """Send one message and wait for its result.

        Whatever interrupts a request ends the runner: its answer would be taken for the
        next request's.

        Args:
            message: a JSON object with "command".
            silence_s: the runner is ended when it says nothing for this long.
            progress: called with what the runner reports in between.

        Returns:
            The runner's result.

        Raises:
            RunnerAnswerError: if the runner answered with an error.
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
        if self._has_ended():
            raise RunnerCrashedError("the runner has been ended", why=self._last_words())
        try:
            self._write(json.dumps(message).encode() + b"\n")
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
        self._end(EXIT_S)
        how, hint = self._how_it_ended()
        return RunnerCrashedError(
            f"the runner ended during {command!r}: {how}",
            why=self._last_words() or "it wrote nothing to stderr",
            hint=hint,
        )

    def _last_words(self) -> str:
        return "\n".join(self._stderr)
