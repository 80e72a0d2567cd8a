"""Who runs when: devices elsewhere at the same time, this machine's clock undisturbed.

What is timed here has this machine to itself. Other devices work meanwhile, but whatever they
need of this machine (compiling, judging on the development split) waits for its turn. Emulation
keeps this machine's cores busy for minutes, so it comes when nothing is timed here any more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from exporter.steps.execution import Stand
from exporter.steps.workers import block_interrupts, end_children

T = TypeVar("T")

_REMOTE = "ssh://"


class Turns:
    """Gives one piece of work at a time this machine, and remembers what to end on an interrupt."""

    def __init__(self) -> None:
        self._machine = threading.RLock()
        self._closers: list[Callable[[], None]] = []

    @contextmanager
    def here(self) -> Iterator[None]:
        """Have this machine for the body; the thread that has it may ask again."""
        with self._machine:
            yield

    def on_interrupt(self, close: Callable[[], None]) -> None:
        """Have something ended when the run is interrupted, such as runners of other threads."""
        self._closers.append(close)

    def interrupt(self) -> None:
        """End everything that other threads wait for."""
        for close in self._closers:
            close()


def is_remote(stand: Stand) -> bool:
    """Say whether a device is another machine."""
    return stand.device.name.startswith(_REMOTE)


def is_emulated(stand: Stand) -> bool:
    """Say whether a device is this machine in disguise, whose time means nothing."""
    return not stand.device.measures_latency


def run_stands(stands: Sequence[Stand], work: Callable[[Stand], T], turns: Turns) -> list[T]:
    """Run all stands, side by side where it does not disturb a clock.

    Args:
        stands: in the order of the results.
        work: does one stand; what it raises ends the others.
        turns: of this machine, shared with `work`.

    Returns:
        What `work` returned, in the order of `stands`.
    """
    if len(stands) < 2:
        return [work(stand) for stand in stands]
    apart = [stand for stand in stands if is_remote(stand)]
    emulated = [stand for stand in stands if is_emulated(stand) and not is_remote(stand)]
    here = [stand for stand in stands if stand not in apart and stand not in emulated]
    results: dict[int, T] = {}
    with ThreadPoolExecutor(len(stands), initializer=block_interrupts) as threads:
        futures: dict[int, Future[T]] = {id(s): threads.submit(work, s) for s in apart}
        try:
            for stand in here:
                with turns.here():
                    results[id(stand)] = work(stand)
            futures |= {id(s): threads.submit(work, s) for s in emulated}
            results |= {key: future.result() for key, future in futures.items()}
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            turns.interrupt()
            end_children()
            raise
    return [results[id(stand)] for stand in stands]
