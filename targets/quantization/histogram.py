"""Histograms of activations that grow with the range seen and never lose a count.

Bins are aligned at zero and their width is a power of two. Hence dividing by the width is exact
in floating point, a doubling of the width merges bins in pairs exactly, and the result is a
function of the values alone: order and split of the batches do not matter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from targets.errors import CalibrationError

NUM_SLOTS = 8192
"""Slots of a growing histogram, half of them on each side of zero."""
_HALF = NUM_SLOTS // 2
_HALF_EXPONENT = 12
_MIN_EXPONENT = -126
"""The narrowest bin is 2**-126, so that both width and 1 / width are normal float32 values."""
_BLOCK = 1 << 16
"""Values binned at a time; the temporaries of a block stay in the second-level cache."""

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Counts of values in bins of one width.

    Args:
        bin_width: width of a bin, in units of the values.
        first_bin: bin i covers [(first_bin + i) * bin_width, (first_bin + i + 1) * bin_width).
        counts: values per bin, shape [num_bins], int64.

    Raises:
        CalibrationError: if the width or a count is impossible.
    """

    bin_width: float
    first_bin: int
    counts: Counts

    def __post_init__(self) -> None:
        usable = math.isfinite(self.bin_width) and self.bin_width > 0
        if not usable or self.counts.ndim != 1 or not self.counts.size or self.counts.min() < 0:
            raise CalibrationError(
                "a histogram is impossible",
                why=f"width {self.bin_width}, counts of shape {self.counts.shape}",
                hint="widths are positive, and there is at least one count and none below zero",
            )

    @property
    def num_values(self) -> int:
        """Sum of all counts."""
        return int(self.counts.sum())

    def absolute(self) -> Counts:
        """Count absolute values: bin k holds k * bin_width <= |x| <= (k + 1) * bin_width.

        Returns:
            Shape [num_bins], int64, from zero to the outermost bin.
        """
        signed = self.first_bin + np.arange(self.counts.size)
        bins = np.where(signed < 0, -1 - signed, signed)
        folded = np.zeros(int(bins.max()) + 1, np.int64)
        # Weights of np.bincount are float64, which does not hold every int64.
        np.add.at(folded, bins, self.counts)
        return folded


class StreamingHistogram:
    """A histogram of all values added so far.

    The width is the smallest 2**k that lets `NUM_SLOTS` bins around zero hold the largest
    absolute value, so that this side of zero spans 2048 to 4096 bins. Values that are all below
    2**-114 share fewer bins, because of the narrowest width.
    """

    __slots__ = ("_counts", "_exponent")

    def __init__(self) -> None:
        self._exponent = _MIN_EXPONENT
        self._counts: Counts = np.zeros(NUM_SLOTS, np.int64)

    @property
    def count(self) -> int:
        """How many values were added."""
        return int(self._counts.sum())

    def add(self, values: NDArray[np.float32]) -> None:
        """Count values.

        Args:
            values: any shape, float32.

        Raises:
            CalibrationError: if a value is NaN or infinite; then nothing was counted.
        """
        flat = np.ascontiguousarray(values, np.float32).reshape(-1)
        if not flat.size:
            return
        absmax = max(-float(flat.min()), float(flat.max()))
        if not math.isfinite(absmax):
            raise CalibrationError(
                "a histogram takes finite values only",
                why=f"{int(np.sum(~np.isfinite(flat)))} of {flat.size} values are NaN or infinite",
                hint="check that the FP32 graph gives finite values for the calibration texts",
            )
        if absmax > 0:
            self._widen(math.frexp(absmax)[1] - _HALF_EXPONENT)
        self._counts += _bin(flat, self._exponent)

    def merge(self, other: StreamingHistogram) -> None:
        """Add everything that another histogram counted; exact, and `other` stays as it is."""
        self._widen(other._exponent)
        self._counts += _merge_bins(other._counts, self._exponent - other._exponent)

    def freeze(self) -> Histogram:
        """Return the counts so far, without empty bins at both ends.

        Raises:
            CalibrationError: if nothing was added.
        """
        occupied = np.flatnonzero(self._counts)
        if not occupied.size:
            raise CalibrationError(
                "a histogram of no values", hint="run at least one calibration text"
            )
        first, last = int(occupied[0]), int(occupied[-1])
        return Histogram(
            bin_width=2.0**self._exponent,
            first_bin=first - _HALF,
            counts=self._counts[first : last + 1].copy(),
        )

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return all that `restore` needs to go on bit for bit: `exponent` and `counts`."""
        return {"exponent": np.array(self._exponent, np.int64), "counts": self._counts.copy()}

    @classmethod
    def restore(cls, state: Mapping[str, NDArray[np.generic]]) -> StreamingHistogram:
        """Go on from what `state` returned.

        Raises:
            CalibrationError: if the state is not one of this class.
        """
        exponent, counts = state.get("exponent"), state.get("counts")
        if exponent is None or counts is None or counts.shape != (NUM_SLOTS,):
            raise CalibrationError(
                "the saved state of a histogram is not usable",
                why=f"it holds {', '.join(sorted(state)) or 'nothing'}",
                hint="delete it and run the calibration again",
            )
        restored = cls()
        restored._exponent = int(exponent)
        restored._counts = counts.astype(np.int64)
        return restored

    def _widen(self, exponent: int) -> None:
        if exponent > self._exponent:
            self._counts = _merge_bins(self._counts, exponent - self._exponent)
            self._exponent = exponent


def _bin(values: NDArray[np.float32], exponent: int) -> Counts:
    """Count finite values below 2**(exponent + 12) in bins of width 2**exponent."""
    # Narrower bins scale up, which is exact in float32. Wider ones scale down, where a small
    # negative value would become a float32 zero and land on the wrong side of it.
    dtype = np.float32 if exponent <= 0 else np.float64
    scale, half = dtype(2.0**-exponent), dtype(_HALF)
    counts = np.zeros(NUM_SLOTS, np.int64)
    scaled, slots = np.empty(_BLOCK, dtype), np.empty(_BLOCK, np.int64)
    for start in range(0, values.size, _BLOCK):
        block = values[start : start + _BLOCK]
        floats, integers = scaled[: block.size], slots[: block.size]
        np.multiply(block, scale, out=floats)
        np.floor(floats, out=floats)
        np.add(floats, half, out=integers, casting="unsafe")
        counts += np.bincount(integers, minlength=NUM_SLOTS)
    return counts


def _merge_bins(counts: Counts, doublings: int) -> Counts:
    """Merge pairs of bins `doublings` times; zero stays a border between bins."""
    if doublings == 0:
        return counts
    occupied = np.flatnonzero(counts)
    # A shift right rounds down, also below zero: the bin -1 stays the bin -1.
    merged = np.zeros_like(counts)
    np.add.at(merged, ((occupied - _HALF) >> min(doublings, 63)) + _HALF, counts[occupied])
    return merged
