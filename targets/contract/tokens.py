"""Token ids of many texts, ragged; the array types that travel with them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSequences:
    """Token ids of many texts without padding (ragged).

    Args:
        ids: all ids behind each other, shape [total_tokens], int32.
        offsets: text i is ids[offsets[i]:offsets[i + 1]], shape [num_texts + 1], int64.
        pad_token_id: what a batch is padded with.
        num_truncated: how many texts were cut at the model's limit.
    """

    ids: NDArray[np.int32]
    offsets: IntArray
    pad_token_id: int
    num_truncated: int = 0

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> NDArray[np.int32]:
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    def __iter__(self) -> Iterator[NDArray[np.int32]]:
        return (self[index] for index in range(len(self)))

    @property
    def lengths(self) -> IntArray:
        """Tokens of each text, shape [num_texts], int64."""
        return np.diff(self.offsets)

    @property
    def sha256(self) -> str:
        """Hash of ids, borders and padding."""
        digest = hashlib.sha256(str(self.pad_token_id).encode())
        digest.update(np.ascontiguousarray(self.offsets, dtype="<i8").tobytes())
        digest.update(np.ascontiguousarray(self.ids, dtype="<i4").tobytes())
        return digest.hexdigest()

    def select(self, indices: Sequence[int] | IntArray) -> TokenSequences:
        """Return the texts at `indices`, in that order."""
        return TokenSequences.from_lists([self[int(i)] for i in indices], self.pad_token_id)

    @classmethod
    def from_lists(
        cls,
        sequences: Sequence[Sequence[int] | NDArray[np.int32]],
        pad_token_id: int,
        num_truncated: int = 0,
    ) -> TokenSequences:
        """Pack per-text ids into one ragged value."""
        lengths = np.fromiter((len(s) for s in sequences), np.int64, len(sequences))
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        parts = [np.asarray(s, np.int32) for s in sequences]
        ids = np.concatenate(parts) if parts else np.zeros(0, np.int32)
        return cls(ids=ids, offsets=offsets, pad_token_id=pad_token_id, num_truncated=num_truncated)

    def save(self, path: Path) -> None:
        """Write an uncompressed `.npz` without pickles."""
        np.savez(
            path,
            ids=self.ids,
            offsets=self.offsets,
            meta=np.array([self.pad_token_id, self.num_truncated], np.int64),
        )

    @classmethod
    def load(cls, path: Path) -> TokenSequences:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as data:
            pad, truncated = (int(v) for v in data["meta"])
            return cls(
                ids=data["ids"], offsets=data["offsets"], pad_token_id=pad, num_truncated=truncated
            )
