"""How long a search may take, counted in time that was worked and not in what lay ready."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Clock = Callable[[], float]
"""Seconds since any fixed moment."""


class WorkClock:
    """Counts the time during which something was worked on; pieces of work may overlap.

    What comes from the cache is no work and takes no time of it.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._num_running = 0
        self._since_s = 0.0
        self._before_s = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the time inside the block; threads that overlap count once."""
        with self._lock:
            if self._num_running == 0:
                self._since_s = self._clock()
            self._num_running += 1
        try:
            yield
        finally:
            with self._lock:
                self._num_running -= 1
                if self._num_running == 0:
                    self._before_s += self._clock() - self._since_s

    @property
    def worked_s(self) -> float:
        """Seconds worked so far, work under way included."""
        with self._lock:
            under_way_s = self._clock() - self._since_s if self._num_running else 0.0
            return self._before_s + under_way_s


class SearchBudget:
    """What one tournament may spend, from now on.

    Args:
        limit_s: seconds of work; None: no limit.
        work_clock: counts the work.
    """

    def __init__(self, limit_s: float | None, work_clock: WorkClock) -> None:
        self._limit_s = limit_s
        self._work_clock = work_clock
        self._start_s = work_clock.worked_s

    def refusal(self) -> str | None:
        """Say why nothing further is tried; None: there is time left."""
        if self._limit_s is None or self._work_clock.worked_s - self._start_s < self._limit_s:
            return None
        return f"not tried: the search budget of {self._limit_s:g} s was spent"
