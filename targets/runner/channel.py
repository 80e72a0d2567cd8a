"""The caller's line: one JSON object per line in, one per line out.

A thread reads, so that a caller who disappears ends this process at once, even in the
middle of a long call into a runtime. While no command runs it blocks and takes no CPU.
"""

from __future__ import annotations

import json
import math
import os
import queue
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

EXIT = "exit"


def take_standard_streams() -> tuple[BinaryIO, BinaryIO]:
    """Keep stdin and stdout for the caller and give everybody else others.

    Whatever a runtime prints to file descriptor 1 goes to stderr from now on; whatever
    reads from descriptor 0 finds it empty.
    """
    commands = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    return commands, answers


class Channel:
    """Commands in order and answers to them."""

    def __init__(
        self, commands: BinaryIO, answers: BinaryIO, on_caller_lost: Callable[[], None]
    ) -> None:
        self._commands = commands
        self._answers = answers
        self._on_caller_lost = on_caller_lost
        self._queue: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._last_progress_s = -math.inf

    def commands(self) -> Iterator[dict[str, Any]]:
        """Yield commands until `exit`."""
        threading.Thread(target=self._read, name="commands", daemon=True).start()
        while (command := self._queue.get()).get("command") != EXIT:
            yield command

    def _read(self) -> None:
        for line in self._commands:
            command = _parse(line)
            self._queue.put(command)
            if command.get("command") == EXIT:
                return
        self._on_caller_lost()

    def result(self, values: dict[str, Any]) -> None:
        """Answer a command."""
        self._write({"result": values})

    def error(self, kind: str, message: str, subject: str) -> None:
        """Answer a command that could not be done."""
        self._write({"error": {"kind": kind, "message": message, "subject": subject}})

    def progress(self, done: int, total: int, every_s: float) -> None:
        """Say how far the command is, unless it was said less than `every_s` ago."""
        now_s = time.monotonic()
        if now_s - self._last_progress_s >= every_s or done == total:
            self._last_progress_s = now_s
            self._write({"progress": {"done": done, "total": total}})

    def _write(self, message: dict[str, Any]) -> None:
        try:
            self._answers.write(json.dumps(message).encode() + b"\n")
            self._answers.flush()
        except BrokenPipeError:
            self._on_caller_lost()


def _parse(line: bytes) -> dict[str, Any]:
    try:
        command = json.loads(line)
    except ValueError:
        command = None
    if isinstance(command, dict):
        return command
    return {"command": f"not a JSON object: {line[:80]!r}"}


def leave_at_once(scratch: Path | None) -> None:
    """End the process without waiting for a runtime's threads; nobody needs the result.

    Args:
        scratch: the folder for this run's files, which nobody is left to remove.
    """
    if scratch is not None:
        shutil.rmtree(scratch, ignore_errors=True)
    os._exit(1)
