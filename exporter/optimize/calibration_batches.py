"""Token ids to padded batches, window by window: a stream of any length is never loaded.

A window is a fixed number of consecutive texts. Inside it texts are sorted by length, so that
batches hold little padding. Which texts share a batch depends on the stream alone, hence a run
that goes on after a crash makes the same batches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from targets.contract import IntArray
from targets.errors import CalibrationError

MAX_BATCH_TOKENS = 2048
"""Padded tokens per batch: enough to keep every core busy, small enough to stay in memory."""

WINDOW_TEXTS = 4096

TokenIds = Sequence[int] | NDArray[np.integer]
"""Token ids of one text without padding, shape [num_tokens]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Consecutive texts of a stream.

    Args:
        texts: token ids of each text that has any, int64.
        num_read: texts of the stream up to the end of this window, empty ones included.
        sha256: hash of all ids and borders of the stream up to the end of this window.
    """

    texts: tuple[IntArray, ...]
    num_read: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Texts padded on the right to the longest of them.

    Args:
        ids: shape [num_texts, length], int64.
        is_token: False on padding, shape [num_texts, length], bool.
    """

    ids: IntArray
    is_token: NDArray[np.bool_]

    @property
    def num_texts(self) -> int:
        """Texts in the batch."""
        return len(self.ids)

    @property
    def num_tokens(self) -> int:
        """Tokens in the batch, without padding."""
        return int(self.is_token.sum())


def read_windows(
    texts: Iterable[TokenIds], max_length: int, window_texts: int = WINDOW_TEXTS
) -> Iterator[Window]:
    """Cut a stream of texts into windows; one window is in memory at a time.

    Args:
        texts: token ids of each text, special tokens included.
        max_length: tokens that the graph takes.
        window_texts: texts per window.

    Raises:
        CalibrationError: if a text is longer than the graph takes, or an id is negative; names
            the text by its number, from 1.
    """
    digest = hashlib.sha256()
    stream = iter(texts)
    num_read = 0
    while chunk := list(islice(stream, window_texts)):
        numbered = enumerate(chunk, start=num_read + 1)
        arrays = [_checked(number, ids, max_length) for number, ids in numbered]
        digest.update(np.array([len(ids) for ids in arrays], "<i8").tobytes())
        digest.update(np.concatenate(arrays).astype("<i8", copy=False).tobytes())
        num_read += len(arrays)
        yield Window(
            texts=tuple(ids for ids in arrays if ids.size),
            num_read=num_read,
            sha256=digest.hexdigest(),
        )


def _checked(number: int, ids: TokenIds, max_length: int) -> IntArray:
    array = np.asarray(ids, np.int64)
    if array.ndim != 1 or len(array) > max_length:
        raise CalibrationError(
            f"calibration text {number} has ids of shape {list(array.shape)}",
            why=f"the graph takes one text of at most {max_length} tokens",
            hint="tokenize with the model's own limit",
        )
    if array.size and array.min() < 0:
        raise CalibrationError(
            f"calibration text {number} has the token id {array.min()}",
            why="the graph would count it from the end of the vocabulary",
            hint="tokenize with the model's own tokenizer",
        )
    return array


def make_batches(window: Window, pad_token_id: int, max_tokens: int) -> Iterator[Batch]:
    """Yield a window's texts in padded batches, longest texts first.

    A batch has at most `max_tokens` tokens with its padding, or one text.
    """
    for texts in _groups(window.texts, max_tokens):
        yield pad(texts, pad_token_id)


def _groups(texts: Sequence[IntArray], max_tokens: int) -> Iterator[list[IntArray]]:
    ordered = sorted(texts, key=len, reverse=True)
    start = 0
    while start < len(ordered):
        # The first is the longest: all the others are padded to its length.
        count = max(1, max_tokens // len(ordered[start]))
        yield ordered[start : start + count]
        start += count


def pad(texts: Sequence[IntArray], pad_token_id: int) -> Batch:
    """Pad texts on the right to one length."""
    lengths = np.array([len(ids) for ids in texts], np.int64)
    is_token = np.arange(int(lengths.max())) < lengths[:, None]
    padded = np.full(is_token.shape, pad_token_id, np.int64)
    padded[is_token] = np.concatenate(texts)
    return Batch(ids=padded, is_token=is_token)
