"""Texts shared out to several runners of one artifact."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait

import numpy as np

from targets.contract import FloatArray, Progress, TokenSequences
from targets.errors import NonFiniteError

FEWEST_TEXTS = 32
"""For each runner; with fewer it is not worth starting another."""


Embed = Callable[[TokenSequences, Progress], FloatArray]
"""Embeds texts by one runner; rows in the order given."""


def embed_shared(
    runners: Sequence[Embed],
    tokens: TokenSequences,
    progress: Progress,
    end: Callable[[], None],
) -> FloatArray:
    """Embed texts by several runners side by side, each with texts of all lengths.

    Args:
        runners: loaded, of one artifact.
        tokens: at least as many texts as runners.
        progress: called with the texts done of all.
        end: ends all runners, so that none is waited for where one failed or Ctrl-C was pressed.

    Returns:
        Rows in the order given, shape [num_texts, dim], float32.

    Raises:
        NonFiniteError: if a row is not finite; names it by its place in `tokens`.
        DeviceError: of the runner that failed first.
    """
    order = np.argsort(tokens.lengths, kind="stable")
    parts = [np.sort(order[first :: len(runners)]) for first in range(len(runners))]
    told = _Sum(len(parts), len(tokens), progress)
    with ThreadPoolExecutor(len(parts)) as threads:
        futures = [
            threads.submit(runner, tokens.select(part), told.of(number))
            for number, (runner, part) in enumerate(zip(runners, parts, strict=True))
        ]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            failed = next((one for one in done if one.exception() is not None), None)
        except BaseException:
            end()
            raise
        if failed is not None and not isinstance(failed.exception(), NonFiniteError):
            end()
    if failed is not None:
        return _after_failure(failed, runners[0], tokens, progress)
    rows = np.empty((len(tokens), futures[0].result().shape[1]), np.float32)
    for part, future in zip(parts, futures, strict=True):
        rows[part] = future.result()
    return rows


def _after_failure(
    failed: Future[FloatArray], runner: Embed, tokens: TokenSequences, progress: Progress
) -> FloatArray:
    """Raise what a runner raised; rows that are not finite are found again, to be named right."""
    if isinstance(failed.exception(), NonFiniteError):
        return runner(tokens, progress)
    return failed.result()


class _Sum:
    """Progress of several parts as progress of the whole."""

    def __init__(self, num_parts: int, total: int, progress: Progress) -> None:
        self._done = [0] * num_parts
        self._total = total
        self._progress = progress
        self._lock = threading.Lock()

    def of(self, number: int) -> Progress:
        """Return what one part reports to."""

        def report(done: int, total: int | None = None) -> None:
            with self._lock:
                self._done[number] = done
                self._progress(sum(self._done), self._total)

        return report
