"""Token ids to windows and padded batches."""

from __future__ import annotations

from itertools import count, islice

import numpy as np
import pytest

from exporter.optimize.calibration_batches import make_batches, pad, read_windows
from targets.contract import TokenSequences
from targets.errors import CalibrationError

PAD = 99


def some_texts(num_texts: int = 50, longest: int = 20, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(1, 90, rng.integers(1, longest + 1)) for _ in range(num_texts)]


def texts_of(batch) -> list[tuple[int, ...]]:
    return [tuple(row[kept].tolist()) for row, kept in zip(batch.ids, batch.is_token, strict=True)]


def test_windows_follow_the_stream():
    windows = list(read_windows(some_texts(10), 20, window_texts=4))
    assert [len(window.texts) for window in windows] == [4, 4, 2]
    assert [window.num_read for window in windows] == [4, 8, 10]
    seen = [tuple(ids.tolist()) for window in windows for ids in window.texts]
    assert seen == [tuple(ids.tolist()) for ids in some_texts(10)]


def test_a_stream_without_end_is_read_one_window_at_a_time():
    taken = count()
    stream = ([1, 2, next(taken)] for _ in count())
    assert len(list(islice(read_windows(stream, 20, window_texts=8), 3))) == 3
    assert next(taken) == 24


def test_tokens_of_a_corpus_and_plain_lists_are_the_same():
    lists = [ids.tolist() for ids in some_texts()]
    packed = TokenSequences.from_lists(lists, PAD)
    from_lists, from_packed = (list(read_windows(one, 20)) for one in (lists, packed))
    assert from_lists[-1].sha256 == from_packed[-1].sha256


@pytest.mark.parametrize(
    "other",
    [
        [[1, 2], [3], [4, 5]],  # another border
        [[3, 4], [1, 2], [5]],  # another order
        [[1, 2], [3, 4], [6]],  # another id
        [[1, 2], [3, 4], [5], []],  # one more text
    ],
)
def test_the_hash_covers_ids_borders_and_order(other):
    def last_hash(texts):
        return list(read_windows(texts, 20, window_texts=2))[-1].sha256

    assert last_hash(other) != last_hash([[1, 2], [3, 4], [5]])


def test_empty_texts_are_left_out_and_counted():
    (window,) = read_windows([[1], [], [2, 3]], 20)
    assert len(window.texts) == 2
    assert window.num_read == 3


@pytest.mark.parametrize(
    ("bad", "said"),
    [(list(range(1, 22)), "at most 20 tokens"), ([1, -5], "-5"), ([[1, 2]], "shape")],
)
def test_a_text_that_does_not_fit_is_named(bad, said):
    with pytest.raises(CalibrationError, match="calibration text 7 ") as caught:
        list(read_windows([[1]] * 6 + [bad], 20, window_texts=4))
    assert said in str(caught.value)


def test_every_text_is_in_one_batch_within_the_budget():
    (window,) = read_windows(some_texts(), 20)
    batches = list(make_batches(window, PAD, max_tokens=64))
    assert all(batch.ids.size <= 64 for batch in batches)
    seen = sorted(text for batch in batches for text in texts_of(batch))
    assert seen == sorted(tuple(ids.tolist()) for ids in some_texts())
    assert sum(batch.num_texts for batch in batches) == 50
    assert sum(batch.num_tokens for batch in batches) == sum(map(len, some_texts()))


def test_sorted_lengths_leave_little_padding():
    texts = some_texts(400, longest=64)
    (window,) = read_windows(texts, 64)
    padded = sum(batch.ids.size for batch in make_batches(window, PAD, max_tokens=512))
    assert padded < 1.1 * sum(map(len, texts))


def test_a_text_above_the_budget_is_alone():
    (window,) = read_windows([[1] * 30, [2] * 3, [3] * 3], 40)
    shapes = [batch.ids.shape for batch in make_batches(window, PAD, max_tokens=8)]
    assert shapes == [(1, 30), (2, 3)]


def test_padding_is_on_the_right_and_known():
    batch = pad([np.array([5, 6, 7]), np.array([8])], PAD)
    assert batch.ids.tolist() == [[5, 6, 7], [8, PAD, PAD]]
    assert batch.is_token.tolist() == [[True] * 3, [True, False, False]]


def test_a_token_that_looks_like_padding_counts():
    batch = pad([np.array([PAD, 1, PAD]), np.array([1])], PAD)
    assert batch.num_tokens == 4


def test_the_same_stream_gives_the_same_batches():
    first, again = (
        [batch.ids.tolist() for window in windows for batch in make_batches(window, PAD, 64)]
        for windows in (
            read_windows(some_texts(), 20, 16),
            read_windows(iter(some_texts()), 20, 16),
        )
    )
    assert first == again
