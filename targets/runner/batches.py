"""Token ids to padded batches: lengths in buckets, batches by a token budget."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .plan import BatchRules, Inputs, RunnerFailure, SessionPlan, TokenArray

KNOWN_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_SHAPE_SEED = 20240229
_PLAIN_IDS = np.arange(5, 100, dtype=np.int64)
"""Behind the special ids of the BERT, RoBERTa and T5 vocabularies, inside the smallest of them."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Ragged token ids: text i is ids[offsets[i]:offsets[i + 1]]."""

    ids: TokenArray
    offsets: TokenArray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> TokenArray:
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> TokenArray:
        """Tokens of each text, shape [num_texts], int64."""
        return np.diff(self.offsets)


def read_tokens(path: Path, plan: SessionPlan) -> Tokens:
    """Read a token file (`.npz` with `ids` and `offsets`, no pickles).

    Raises:
        RunnerFailure: "missing_file", or "tokens" if the file is damaged or a text is
            longer than the model's limit.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as data:
            tokens = Tokens(data["ids"].astype(np.int64), data["offsets"].astype(np.int64))
    except FileNotFoundError as error:
        raise RunnerFailure("missing_file", f"no token file {path}", str(path)) from error
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise RunnerFailure("tokens", f"{path.name} is no token file: {error}") from error
    _check_tokens(tokens, plan.max_seq_length)
    return tokens


def _check_tokens(tokens: Tokens, max_seq_length: int) -> None:
    """Refuse borders that do not fit the ids, and texts above the limit."""
    lengths = tokens.lengths
    borders = tokens.offsets[[0, -1]].tolist() if len(tokens.offsets) else []
    if borders != [0, len(tokens.ids)] or (lengths < 0).any():
        raise RunnerFailure("tokens", "the texts' borders do not fit their token ids")
    if len(lengths) and lengths.max() > max_seq_length:
        index = int(lengths.argmax())
        raise RunnerFailure(
            "tokens",
            f"text {index} has {lengths[index]} tokens, the model takes {max_seq_length}",
        )


def padded_lengths(lengths: TokenArray, rules: BatchRules) -> TokenArray:
    """Round lengths up to buckets, never beyond the model's limit.

    Extra padding is added to the bucket and rounded again, so that it never vanishes
    inside the padding that a text has anyway.
    """

    def to_bucket(values: TokenArray) -> TokenArray:
        return -(-values // rules.length_multiple) * rules.length_multiple

    buckets = to_bucket(np.maximum(lengths, 1))
    return np.minimum(to_bucket(buckets + rules.extra_padding), rules.max_seq_length)


def plan_batches(lengths: TokenArray, rules: BatchRules) -> list[NDArray[np.int64]]:
    """Group texts into batches of at most `max_batch` texts and `max_tokens` padded tokens.

    Sorted batches begin with the longest texts: memory is claimed by the first batch
    and the time left is never underestimated.

    Returns:
        Indices of the texts of each batch; every text is in exactly one.
    """
    padded = padded_lengths(lengths, rules)
    order = np.argsort(-lengths, kind="stable") if rules.sort else np.arange(len(lengths))
    batches: list[list[int]] = []
    longest = 0
    for index in order.tolist():
        longest = max(longest, int(padded[index])) if batches else int(padded[index])
        if not batches or not _fits(len(batches[-1]) + 1, longest, rules):
            batches.append([])
            longest = int(padded[index])
        batches[-1].append(index)
    return [np.array(batch, np.int64) for batch in batches]


def _fits(num_texts: int, length: int, rules: BatchRules) -> bool:
    return num_texts <= rules.max_batch and num_texts * length <= rules.max_tokens


def build_inputs(
    tokens: Tokens, batch: Sequence[int] | NDArray[np.int64], rules: BatchRules, plan: SessionPlan
) -> Inputs:
    """Pad one batch on the right; attention_mask is 0 on padding.

    Returns:
        The plan's inputs, each [batch, length], int64, contiguous and writable.
    """
    indices = [int(index) for index in batch]
    length = int(padded_lengths(tokens.lengths[indices], rules).max())
    ids = np.full((len(indices), length), plan.pad_token_id, np.int64)
    mask = np.zeros_like(ids)
    for row, index in enumerate(indices):
        text = tokens[index]
        ids[row, : len(text)] = text
        mask[row, : len(text)] = 1
    return _by_name(ids, mask, plan)


def full_batch(batch_size: int, length: int, plan: SessionPlan, tokens: Tokens | None) -> Inputs:
    """Build a batch without padding, the same at every call.

    Ids are drawn from the inner tokens of `tokens` (the first and the last of a text
    are special ones), else from low ids that every vocabulary has.

    Raises:
        RunnerFailure: "command" if the shape is empty or longer than the model's limit.
    """
    if not (batch_size > 0 and 0 < length <= plan.max_seq_length):
        raise RunnerFailure(
            "command",
            f"shape {batch_size} × {length} is outside 1 × 1 … any × {plan.max_seq_length}",
        )
    pool = _inner_ids(tokens) if tokens is not None else _PLAIN_IDS
    generator = np.random.default_rng(_SHAPE_SEED)
    ids = generator.choice(pool, (batch_size, length))
    return _by_name(ids, np.ones_like(ids), plan)


def _inner_ids(tokens: Tokens) -> TokenArray:
    inner = [tokens[index][1:-1] for index in range(len(tokens))]
    pool = np.unique(np.concatenate(inner)) if inner else _PLAIN_IDS
    return pool if len(pool) else _PLAIN_IDS


def _by_name(ids: TokenArray, mask: TokenArray, plan: SessionPlan) -> Inputs:
    arrays = dict(zip(KNOWN_INPUTS, (ids, mask, np.zeros_like(ids)), strict=True))
    return {name: arrays[name] for name in plan.inputs}


def iterate_inputs(
    tokens: Tokens, rules: BatchRules, plan: SessionPlan
) -> Iterator[tuple[NDArray[np.int64], Inputs]]:
    """Yield the indices and the padded inputs of every batch."""
    for batch in plan_batches(tokens.lengths, rules):
        yield batch, build_inputs(tokens, batch, rules, plan)
