"""CUDA as far as an engine needs it: streams, pinned and device memory, copies, events, graphs.

For type checkers and readers: the session adapter, which loads `cuda.py` by its path, never
imports it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Handle = Any
"""A stream, an event or a graph as the package behind it has it."""


class Cuda(Protocol):
    """What sessions and calibrators do on a GPU; sizes in bytes, device addresses as integers."""

    name: str
    has_graphs: bool

    def versions(self) -> dict[str, str]:
        """Return versions of the driver's CUDA and of the package."""

    def bus_id(self) -> str:
        """Return the GPU's place on the PCI bus, by which other tools know it."""

    def stream(self) -> Handle:
        """Make a stream that waits for no other."""

    def stream_number(self, stream: Handle) -> int:
        """Return a stream as TensorRT takes it."""

    def pinned(self, size_bytes: int) -> Bytes:
        """Return page-locked host memory, shape [size_bytes], uint8."""

    def device(self, size_bytes: int) -> int:
        """Return the address of device memory."""

    def free(self, address: int) -> None:
        """Free device memory."""

    def to_device(self, address: int, source: Bytes, stream: Handle) -> None:
        """Start copying host memory, which must stay as it is until the stream is done."""

    def to_host(self, target: Bytes, address: int, stream: Handle) -> None:
        """Start filling host memory from the device."""

    def synchronize(self, stream: Handle) -> None:
        """Wait until a stream is done."""

    def event(self) -> Handle:
        """Make an event that takes the time."""

    def record(self, event: Handle, stream: Handle) -> None:
        """Let an event take the time when the stream arrives there."""

    def elapsed_ms(self, start: Handle, end: Handle) -> float:
        """Return the milliseconds between two events that have happened."""

    def capture(self, work: Callable[[], None], stream: Handle) -> Handle:
        """Let work be put on a stream without running it; return the graph of it."""

    def launch(self, graph: Handle, stream: Handle) -> None:
        """Start a graph."""

    def close(self) -> None:
        """Free everything that is left."""
