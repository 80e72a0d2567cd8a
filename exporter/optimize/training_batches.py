"""Which texts every training step sees: decided beforehand, so that a killed run goes on alike.

Training texts may all be short, and what is embedded later may be long. In most steps several texts
are joined to longer ones: positions and attention over many tokens are trained as well. Training
texts may also all be of one subject, and what is learnt on it hardly helps on another: in most
texts some or all tokens are replaced by any of the vocabulary (`docs/training-aware.md` has what
that gains and costs).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from targets.contract import IntArray, TokenSequences

_JOINED_SHARE = 0.6
"""Share of the steps whose texts are joined."""
_SHORTEST_JOINED, _LONGEST_JOINED = 32, 192
_NO_CLASS = -1
_REPLACED_SHARES = (0.0, 0.3, 0.7, 1.0)
"""Share of a text's tokens that are replaced; each share is as likely as the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingBatch:
    """What one step sees.

    Args:
        tokens: its texts.
        classes: index of each text's class, -1 without one or where the text was changed, shape
            [num_texts], int64.
    """

    tokens: TokenSequences
    classes: IntArray


@dataclass(frozen=True, slots=True)
class Frame:
    """How many ids stand in front of and behind every text: special tokens, a prompt."""

    front: int
    back: int


def frame_of(tokens: TokenSequences) -> Frame:
    """Find what all texts begin and end with; every text keeps at least one id of its own."""
    texts = [tuple(int(one) for one in tokens[index]) for index in range(len(tokens))]
    room = min((len(text) for text in texts), default=1) - 1
    front = _num_alike(texts, room)
    back = _num_alike([text[::-1] for text in texts], room - front)
    return Frame(front=front, back=back)


def _num_alike(texts: Sequence[Sequence[int]], most: int) -> int:
    if len(set(texts)) < 2:  # one text says nothing about a frame
        return 0
    for place in range(max(most, 0)):
        if len({text[place] for text in texts}) > 1:
            return place
    return max(most, 0)


def make_batches(
    tokens: TokenSequences,
    *,
    num_steps: int,
    batch_tokens: int,
    max_length: int,
    vocabulary: IntArray,
    seed: int,
    classes: IntArray | None = None,
) -> list[TrainingBatch]:
    """Make the batches of all steps.

    Args:
        tokens: training texts, at least one.
        num_steps: how many batches; texts come again, in another order, once all were seen.
        batch_tokens: tokens of a batch, without pads, reached by its last text.
        max_length: the longest joined text, in tokens.
        vocabulary: ids that tokens are replaced by, shape [num_ids]; empty: texts keep theirs.
        seed: of order, lengths and replacements.
        classes: of the texts, -1 without one, shape [num_texts]; texts that are not joined then
            keep their tokens.
    """
    known = np.full(len(tokens), _NO_CLASS, np.int64) if classes is None else classes
    rng = np.random.default_rng(seed)
    frame = frame_of(tokens)
    order: list[int] = []
    batches = []
    for _ in range(num_steps):
        length = _target_length(rng, max_length)
        batch: list[list[int]] = []
        of_batch: list[int] = []
        while sum(len(text) for text in batch) < batch_tokens:
            first, text = _next_text(tokens, order, frame, length, max_length, rng)
            keeps_class = not length and classes is not None
            of_batch.append(int(known[first]) if keeps_class else _NO_CLASS)
            if not keeps_class:
                text = _with_replaced_tokens(text, frame, vocabulary, rng)
            batch.append(text)
        batches.append(
            TrainingBatch(
                tokens=TokenSequences.from_lists(batch, tokens.pad_token_id),
                classes=np.array(of_batch, np.int64),
            )
        )
    return batches


def _target_length(rng: np.random.Generator, max_length: int) -> int:
    """Return the length that texts are joined to; 0: they stay as they are."""
    joined, share = rng.random(2)
    longest = min(max_length, _LONGEST_JOINED)
    if joined >= _JOINED_SHARE or longest <= _SHORTEST_JOINED:
        return 0
    return int(_SHORTEST_JOINED + share * (longest - _SHORTEST_JOINED))


def _next_text(
    tokens: TokenSequences,
    order: list[int],
    frame: Frame,
    length: int,
    max_length: int,
    rng: np.random.Generator,
) -> tuple[int, list[int]]:
    """Take texts off `order` until they are long enough, under one frame.

    Returns:
        Which text came first, and all of them as one.
    """
    first, text = _taken(tokens, order, rng)
    end = len(text) - frame.back
    body, suffix = text[:end], text[end:]
    while len(body) + len(suffix) < length:
        _, other = _taken(tokens, order, rng)
        body = body + other[frame.front : len(other) - frame.back]
    return first, body[: max(max_length - len(suffix), 1)] + suffix


def _with_replaced_tokens(
    text: list[int], frame: Frame, vocabulary: IntArray, rng: np.random.Generator
) -> list[int]:
    """Return a text with some of its tokens replaced; its frame stays."""
    share = _REPLACED_SHARES[int(rng.integers(len(_REPLACED_SHARES)))]
    if not len(vocabulary) or not share:
        return text
    changed = np.asarray(text)
    own = slice(frame.front, len(text) - frame.back)
    others = rng.choice(vocabulary, len(changed[own]))
    changed[own] = np.where(rng.random(len(others)) < share, others, changed[own])
    return [int(one) for one in changed]


def _taken(
    tokens: TokenSequences, order: list[int], rng: np.random.Generator
) -> tuple[int, list[int]]:
    if not order:
        order.extend(int(one) for one in rng.permutation(len(tokens)))
    index = order.pop()
    return index, [int(one) for one in tokens[index]]
