"""Progress on stderr: bars on a terminal, one line a step elsewhere (CI logs)."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

from exporter.progress import Reporter, SilentReporter
from targets.contract import Progress, no_progress


class BarReporter:
    """A bar with count and time left for the step that runs, a line for each that is done."""

    def __init__(self, progress: RichProgress) -> None:
        self._progress = progress

    @contextmanager
    def step(self, title: str) -> Iterator[Progress]:
        """Show one step's bar while it runs."""
        started_s = time.monotonic()
        task = self._progress.add_task(title, total=None)

        def advance(done: int, total: int | None = None) -> None:
            self._progress.update(task, completed=done, total=total)

        try:
            yield advance
        finally:
            self._progress.remove_task(task)
        self._progress.console.print(_done_line(title, started_s), style="dim", highlight=False)

    def note(self, text: str) -> None:
        """Print a note above the bars."""
        self._progress.console.print(f"note: {text}", highlight=False, markup=False)


class LineReporter:
    """One line for each finished step; for logs and pipes."""

    @contextmanager
    def step(self, title: str) -> Iterator[Progress]:
        """Print the step with its duration once it is done."""
        started_s = time.monotonic()
        yield no_progress
        print(_done_line(title, started_s), file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """Print a note."""
        print(f"note: {text}", file=sys.stderr, flush=True)


@contextmanager
def make_reporter(*, quiet: bool) -> Iterator[Reporter]:
    """Yield the reporter that fits where stderr goes."""
    if quiet:
        yield SilentReporter()
    elif not sys.stderr.isatty():
        yield LineReporter()
    else:
        with _bars() as progress:
            yield BarReporter(progress)


def _bars() -> RichProgress:
    return RichProgress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def _done_line(title: str, started_s: float) -> str:
    return f"{time.monotonic() - started_s:6.1f} s  {title}"
