"""Which texts every training step sees: decided beforehand, so that a killed run goes on alike.

Training texts may all be short, and what is embedded later may be long. In most steps several texts
are joined to longer ones: positions and attention over many tokens are trained as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from targets.contract import TokenSequences

_JOINED_SHARE = 0.6
"""Share of the steps whose texts are joined."""
_SHORTEST_JOINED, _LONGEST_JOINED = 32, 192


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
    tokens: TokenSequences, *, num_steps: int, batch_tokens: int, max_length: int, seed: int
) -> list[TokenSequences]:
    """Make the batches of all steps.

    Args:
        tokens: training texts, at least one.
        num_steps: how many batches; texts come again, in another order, once all were seen.
        batch_tokens: tokens of a batch, without pads, reached by its last text.
        max_length: the longest joined text, in tokens.
        seed: of order and lengths.
    """
    rng = np.random.default_rng(seed)
    frame = frame_of(tokens)
    order: list[int] = []
    batches = []
    for _ in range(num_steps):
        length = _target_length(rng, max_length)
        batch: list[list[int]] = []
        while sum(len(text) for text in batch) < batch_tokens:
            batch.append(_next_text(tokens, order, frame, length, max_length, rng))
        batches.append(TokenSequences.from_lists(batch, tokens.pad_token_id))
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
) -> list[int]:
    """Take texts off `order` until they are long enough, under one frame."""
    text = _taken(tokens, order, rng)
    end = len(text) - frame.back
    body, suffix = text[:end], text[end:]
    while len(body) + len(suffix) < length:
        other = _taken(tokens, order, rng)
        body = body + other[frame.front : len(other) - frame.back]
    return body[: max(max_length - len(suffix), 1)] + suffix


def _taken(tokens: TokenSequences, order: list[int], rng: np.random.Generator) -> list[int]:
    if not order:
        order.extend(int(one) for one in rng.permutation(len(tokens)))
    return [int(one) for one in tokens[order.pop()]]
