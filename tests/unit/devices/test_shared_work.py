"""Texts shared out to several runners: rows where they belong, failures by name."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from targets.contract import FloatArray, Progress, TokenSequences, no_progress
from targets.devices.shared_work import embed_shared
from targets.errors import NonFiniteError, RunnerCrashedError

TOKENS = TokenSequences.from_lists([[number] * (1 + number % 7) for number in range(50)], 0)


def embed(tokens: TokenSequences, progress: Progress) -> FloatArray:
    """Return a row that says which text it is of."""
    progress(len(tokens), len(tokens))
    return np.array([[tokens[at][0], len(tokens[at])] for at in range(len(tokens))], np.float32)


def nothing_to_end() -> None:
    raise AssertionError("no runner failed")


@pytest.mark.parametrize("num_runners", [1, 2, 3])
def test_rows_come_back_in_order(num_runners):
    rows = embed_shared([embed] * num_runners, TOKENS, no_progress, nothing_to_end)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, embed(TOKENS, no_progress))


def test_each_runner_gets_texts_of_all_lengths():
    seen = []

    def watched(tokens: TokenSequences, progress: Progress) -> FloatArray:
        seen.append(sorted(tokens.lengths))
        return embed(tokens, progress)

    embed_shared([watched] * 2, TOKENS, no_progress, nothing_to_end)
    assert [len(one) for one in seen] == [25, 25]
    assert abs(sum(seen[0]) - sum(seen[1])) <= 7


def test_progress_is_that_of_the_whole():
    told = []
    embed_shared([embed] * 2, TOKENS, lambda *done: told.append(done), nothing_to_end)
    assert told == [(25, 50), (50, 50)]


def test_one_that_fails_ends_the_others():
    ended = threading.Event()

    def waits(tokens: TokenSequences, progress: Progress) -> FloatArray:
        if not ended.wait(60):
            raise AssertionError("nobody ended it")
        raise RunnerCrashedError("ended")

    def crashes(tokens: TokenSequences, progress: Progress) -> FloatArray:
        raise RunnerCrashedError("out of memory")

    with pytest.raises(RunnerCrashedError, match="out of memory"):
        embed_shared([waits, crashes], TOKENS, no_progress, ended.set)


def test_rows_that_are_not_finite_are_named_by_their_place_in_the_whole():
    def strict(tokens: TokenSequences, progress: Progress) -> FloatArray:
        for at in range(len(tokens)):
            if tokens[at][0] == 33:
                raise NonFiniteError(f"row {at} is not finite")
        return embed(tokens, progress)

    with pytest.raises(NonFiniteError, match="row 33 "):
        embed_shared([strict] * 2, TOKENS, no_progress, nothing_to_end)
