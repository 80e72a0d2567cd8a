"""The event loop of all SSH connections, in a thread of its own; callers just wait."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_lock = threading.Lock()
_loops: dict[int, asyncio.AbstractEventLoop] = {}
"""By process id: a forked child has the entry of its parent, but not the thread."""


def run(work: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
    """Run a coroutine on the loop and wait for it; whatever interrupts the wait cancels it.

    Raises:
        TimeoutError: it took longer than `timeout_s`.
    """
    future = asyncio.run_coroutine_threadsafe(work, loop())
    try:
        return future.result(timeout_s)
    except BaseException:
        future.cancel()
        raise


def loop() -> asyncio.AbstractEventLoop:
    """Return the running loop of this process; it ends with the process."""
    with _lock:
        if os.getpid() not in _loops:
            _loops[os.getpid()] = _start()
        return _loops[os.getpid()]


def _start() -> asyncio.AbstractEventLoop:
    started = asyncio.new_event_loop()
    threading.Thread(target=started.run_forever, name="ssh", daemon=True).start()
    return started
