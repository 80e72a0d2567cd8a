"""How long work says how far it is."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called by long work: how much is done, of how much (None: unknown)."""

    def __call__(self, done: int, total: int | None = None) -> None:
        """Take note of the progress."""


def no_progress(done: int, total: int | None = None) -> None:
    """Ignore progress."""
