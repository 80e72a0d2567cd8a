"""Seeded choice that depends on the texts alone: not on order, chunks or library versions."""

from __future__ import annotations

import hashlib
import heapq
from typing import Generic, TypeVar

T = TypeVar("T")


def seeded_rank(seed: int, purpose: str, key: str) -> int:
    """Return a uniform 128-bit number that `seed`, `purpose` and `key` determine.

    Sorting by it is a shuffle that any Python repeats, and in which one key's place
    does not hang on the others.
    """
    digest = hashlib.blake2b(f"{seed}\0{purpose}\0".encode(), digest_size=16)
    digest.update(key.encode("utf-8", "surrogatepass"))
    return int.from_bytes(digest.digest(), "big")


class Reservoir(Generic[T]):
    """A uniform sample of the distinct keys of a stream, in memory of the sample's size.

    Keeps the `size` keys of lowest rank (a bottom-k sketch: Cohen and Kaplan, "Summarizing
    data using bottom-k sketches", PODC 2007). A key that comes again has the same rank: it
    is either in the sample or will be turned away once more, so no set of all keys is needed.
    """

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._seed = seed
        self._offered = 0
        self._ranks: set[int] = set()
        # The highest rank lies on top; ranks differ, so items are never compared.
        self._heap: list[tuple[int, int, T]] = []

    @property
    def offered(self) -> int:
        """How many items came by, repeated keys included."""
        return self._offered

    def offer(self, key: str, item: T) -> None:
        """Take note of an item; the first of several with the same key counts."""
        rank = seeded_rank(self._seed, "sample", key)
        entry = (-rank, self._offered, item)
        self._offered += 1
        if rank in self._ranks:
            return
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, entry)
        elif rank < -self._heap[0][0]:
            self._ranks.remove(-heapq.heapreplace(self._heap, entry)[0])
        else:
            return
        self._ranks.add(rank)

    def sample(self) -> list[T]:
        """Return the sampled items in the order in which they were offered."""
        return [item for _, _, item in sorted(self._heap, key=lambda entry: entry[1])]
