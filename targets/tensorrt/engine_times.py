"""Where the time of a batch goes on the GPU, by CUDA events on the engine's own stream.

Imports the standard library only: the session adapter loads this file by its path.
"""

from __future__ import annotations

import statistics
from collections import deque
from typing import Any

STEPS = ("host_to_device", "compute", "device_to_host")
_REMEMBERED = 1024


class EngineTimes:
    """The steps of the last batches.

    Args:
        cuda: a `cuda.Cuda`, of a file that was loaded by its path.
        stream: where the steps are put.
    """

    def __init__(self, cuda: Any, stream: Any) -> None:  # noqa: ANN401
        self._cuda, self._stream = cuda, stream
        self._events = [cuda.event() for _ in range(len(STEPS) + 1)]
        self._next = 0
        self._spent_ms: deque[tuple[float, ...]] = deque(maxlen=_REMEMBERED)

    def start(self) -> None:
        """Take the time when the stream arrives at a batch."""
        self._next = 0
        self.split()

    def split(self) -> None:
        """Take the time when the stream arrives at the end of a step."""
        self._cuda.record(self._events[self._next], self._stream)
        self._next += 1

    def remember(self) -> None:
        """Keep the times of a batch that is done."""
        pairs = zip(self._events, self._events[1:], strict=False)
        self._spent_ms.append(tuple(self._cuda.elapsed_ms(*pair) for pair in pairs))

    def medians(self) -> dict[str, str]:
        """Return the median of each step in milliseconds, by its option's name; none so far: {}."""
        columns = zip(*self._spent_ms, strict=True)
        named = zip(STEPS, columns, strict=False)
        return {f"median_{name}_ms": f"{statistics.median(ms):.4f}" for name, ms in named}
