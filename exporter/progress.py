"""How a stage tells whoever watches what it is doing. A leaf of the house."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from targets.contract import Progress, no_progress


class Reporter(Protocol):
    """Shows progress and notes to somebody; the pipeline never prints."""

    def step(self, title: str) -> AbstractContextManager[Progress]:
        """Announce a step; the value yielded takes its progress."""

    def note(self, text: str) -> None:
        """Say something worth knowing that is not an error."""


class SilentReporter:
    """Shows nothing."""

    @contextmanager
    def step(self, title: str) -> Iterator[Progress]:
        """Yield a progress that is ignored."""
        yield no_progress

    def note(self, text: str) -> None:
        """Drop the note."""
