"""A process for work that may crash: started again when it died, its last words in the error."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TypeVar, TypeVarTuple

from exporter.process import share_cores

_GRACE_S = 10.0
_KEPT_LINES = 20
_STDERR = 2
_NO_WORDS = "it crashed, or the system ended it, often for want of memory; it wrote nothing"

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class WorkerDiedError(Exception):
    """The process ended before it answered; the message is the last lines of its stderr."""


class Worker:
    """One process of its own for one piece of work after another.

    Args:
        folder: where its stderr is kept while it works.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = count()
        self._pool = _pool()

    def call(self, work: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Return what a function of some module returns in the process, or raise what it raises.

        Raises:
            WorkerDiedError: the process ended; the next call gets another one.
        """
        said = self._folder / f"{id(self)}-{next(self._numbers)}.stderr"
        try:
            return self._pool.submit(_do, said, work, arguments).result()
        except BrokenProcessPool as error:
            self._pool.shutdown(wait=False)
            self._pool = _pool()
            raise WorkerDiedError(_last_lines(said) or _NO_WORDS) from error

    def end(self, *, wait: bool = True) -> None:
        """Let the process end; without waiting, what it has not begun is forgotten."""
        self._pool.shutdown(wait=wait, cancel_futures=not wait)


def block_interrupts() -> None:
    """Keep Ctrl-C from processes that this thread starts, from their first moment on."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def end_children() -> None:
    """Kill every process that works, and wait until it is gone."""
    for child in multiprocessing.active_children():
        child.kill()
        child.join(_GRACE_S)


def _pool() -> ProcessPoolExecutor:
    """Return a pool of one: a larger one ends everybody's work when one of its processes dies."""
    return ProcessPoolExecutor(
        max_workers=1,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_live_and_die_with_the_parent,
    )


def _last_lines(path: Path) -> str:
    if not path.is_file():  # it died before it began
        return ""
    text = path.read_bytes().decode(errors="replace").strip()
    return "\n".join(text.splitlines()[-_KEPT_LINES:])


# --------------------------------------------------------------------- within the process


def _do(said: Path, work: Callable[[*Ts], T], arguments: tuple[*Ts]) -> T:
    with _stderr_in(said):
        return work(*arguments)


@contextmanager
def _stderr_in(path: Path) -> Iterator[None]:
    """Send the descriptor itself to a file, where native code writes too; afterwards show it."""
    shown = os.dup(_STDERR)
    try:
        with path.open("wb") as file:
            os.dup2(file.fileno(), _STDERR)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(shown, _STDERR)
        os.close(shown)
        with suppress(OSError):  # nobody may be there to read it
            os.write(_STDERR, path.read_bytes())
            path.unlink()


def _live_and_die_with_the_parent() -> None:
    """Leave interrupts to the parent, and end when it is killed.

    A worker waits on a queue whose other end it holds itself, so a parent that was killed
    does not show there.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    share_cores()
    threading.Thread(target=_end_after_the_parent, daemon=True).start()


def _end_after_the_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
