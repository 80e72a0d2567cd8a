"""What calibration remembers of a tensor: extremes, histogram, channels, second moments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from targets.errors import CalibrationError
from targets.quantization.histogram import Histogram, StreamingHistogram

_HISTOGRAM = "histogram."
_AGAIN = "delete it and run the calibration again"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorStatistics:
    """Everything that choosing a range, smoothing and correcting a layer need of one tensor.

    Args:
        count: values seen; the histogram's counts add up to it.
        minimum: smallest value.
        maximum: largest value.
        histogram: all values, signed.
        channel_absmax: shape [channels], float32; None where channels were not kept apart.
        channel_minimum: shape [channels], float32; None likewise.
        channel_maximum: shape [channels], float32; None likewise.
        channel_mean: shape [channels], float64; None likewise.
        gram: mean of x x^T over all tokens x, shape [channels, channels], float32, symmetric;
            None unless asked for. It is the Hessian of a layer's squared output error up to a
            factor of two (Frantar et al., GPTQ, 2023, section 3.1).

    Raises:
        CalibrationError: if the parts contradict each other.
    """

    count: int
    minimum: float
    maximum: float
    histogram: Histogram
    channel_absmax: NDArray[np.float32] | None = None
    channel_minimum: NDArray[np.float32] | None = None
    channel_maximum: NDArray[np.float32] | None = None
    channel_mean: NDArray[np.float64] | None = None
    gram: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        for wrong, why in self._contradictions():
            if wrong:
                raise CalibrationError("statistics contradict themselves", why=why, hint=_AGAIN)

    @property
    def absmax(self) -> float:
        """Largest absolute value."""
        return max(abs(self.minimum), abs(self.maximum))

    def _contradictions(self) -> tuple[tuple[bool, str], ...]:
        counted, gram = self.histogram.num_values, self.gram
        channels = (
            self.channel_absmax,
            self.channel_minimum,
            self.channel_maximum,
            self.channel_mean,
        )
        shapes = {None if one is None else one.shape for one in channels}
        finite = bool(np.isfinite([self.minimum, self.maximum]).all())
        return (
            (counted != self.count, f"the histogram counts {counted} of {self.count} values"),
            (
                not finite or self.minimum > self.maximum,
                f"values between {self.minimum} and {self.maximum}",
            ),
            (len(shapes) > 1, f"channels of different shapes: {sorted(map(str, shapes))}"),
            (
                gram is not None and not np.array_equal(gram, gram.T),
                "the second moments are not symmetric",
            ),
        )


class StreamingStatistics:
    """Statistics of all rows added so far.

    Sums of channels are float64. Second moments are taken batch by batch as one float32 matrix
    product (BLAS ssyrk, whose error grows with the tokens of one batch only) and summed in
    float64. The same batches in the same order give the same bits on the same machine with the
    same number of BLAS threads.

    Args:
        num_channels: size of the last axis; None: channels are not kept apart, and arrays of
            any shape are taken.
        gram: whether second moments are kept; they need channels.

    Raises:
        CalibrationError: if second moments are asked for without channels.
    """

    __slots__ = ("_gram", "_histogram", "_maximum", "_minimum", "_sum")

    def __init__(self, num_channels: int | None, gram: bool = False) -> None:
        if gram and num_channels is None:
            raise CalibrationError(
                "second moments need channels", hint="say how many channels the tensor has"
            )
        size = num_channels or 1
        self._histogram = StreamingHistogram()
        self._minimum = np.full(size, np.inf, np.float32)
        self._maximum = np.full(size, -np.inf, np.float32)
        self._sum = None if num_channels is None else np.zeros(size, np.float64)
        self._gram = np.zeros((size, size), np.float64) if gram else None

    @property
    def count(self) -> int:
        """How many values were added."""
        return self._histogram.count

    def add(self, rows: NDArray[np.float32]) -> None:
        """Take note of rows.

        Args:
            rows: shape [tokens, channels], float32, without padding; any shape where channels
                are not kept apart.

        Raises:
            CalibrationError: if the shape does not fit or a value is NaN or infinite; then
                nothing was taken note of.
        """
        # Contiguous, because the bits of X^T X depend on the layout in memory.
        rows = np.ascontiguousarray(rows, np.float32)
        self._check_shape(rows)
        if not rows.size:
            return
        axis = None if self._sum is None else 0
        low, high = np.atleast_1d(rows.min(axis=axis)), np.atleast_1d(rows.max(axis=axis))
        _check_finite(rows, low, high)
        moments = None if self._gram is None else _second_moments(rows)
        self._histogram.add(rows)
        np.minimum(self._minimum, low, out=self._minimum)
        np.maximum(self._maximum, high, out=self._maximum)
        if self._sum is not None:
            self._sum += rows.sum(axis=0, dtype=np.float64)
        if self._gram is not None and moments is not None:
            self._gram += moments

    def merge(self, other: StreamingStatistics) -> None:
        """Add everything that another collector saw; `other` stays as it is.

        Counts and extremes are exact, sums are rounded to float64.

        Raises:
            CalibrationError: if the other one keeps other channels or other moments.
        """
        if self._layout() != other._layout():
            raise CalibrationError(
                "statistics of different tensors cannot be merged",
                why=f"{self._layout()} and {other._layout()}",
                hint="merge statistics of one tensor only",
            )
        self._histogram.merge(other._histogram)
        np.minimum(self._minimum, other._minimum, out=self._minimum)
        np.maximum(self._maximum, other._maximum, out=self._maximum)
        if self._sum is not None and other._sum is not None:
            self._sum += other._sum
        if self._gram is not None and other._gram is not None:
            self._gram += other._gram

    def freeze(self) -> TensorStatistics:
        """Return the statistics so far.

        Raises:
            CalibrationError: if nothing was added.
        """
        histogram = self._histogram.freeze()
        num_rows = self.count / self._minimum.size
        apart = self._sum is not None
        absmax = np.maximum(np.abs(self._minimum), np.abs(self._maximum))
        return TensorStatistics(
            count=self.count,
            minimum=float(self._minimum.min()),
            maximum=float(self._maximum.max()),
            histogram=histogram,
            channel_absmax=absmax if apart else None,
            channel_minimum=self._minimum.copy() if apart else None,
            channel_maximum=self._maximum.copy() if apart else None,
            channel_mean=None if self._sum is None else self._sum / num_rows,
            gram=None if self._gram is None else (self._gram / num_rows).astype(np.float32),
        )

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return all that `restore` needs to go on bit for bit, as arrays by name."""
        arrays: dict[str, NDArray[np.generic]] = {
            _HISTOGRAM + name: array for name, array in self._histogram.state().items()
        }
        arrays |= {"minimum": self._minimum.copy(), "maximum": self._maximum.copy()}
        if self._sum is not None:
            arrays["sum"] = self._sum.copy()
        if self._gram is not None:
            arrays["gram"] = self._gram.copy()
        return arrays

    @classmethod
    def restore(cls, state: Mapping[str, NDArray[np.generic]]) -> StreamingStatistics:
        """Go on from what `state` returned.

        Raises:
            CalibrationError: if the state is not one of this class.
        """
        own = {name: state[name] for name in ("minimum", "maximum", "sum", "gram") if name in state}
        size = own["minimum"].size if "minimum" in own else 0
        restored = cls(size if "sum" in own else None, gram="gram" in own)
        expected = {name: one.shape for name, one in restored.state().items()}
        if {name: one.shape for name, one in state.items()} != expected:
            raise CalibrationError(
                "the saved state of statistics is not usable",
                why=f"it holds {', '.join(sorted(state)) or 'nothing'}",
                hint=_AGAIN,
            )
        prefix = len(_HISTOGRAM)
        restored._histogram = StreamingHistogram.restore(
            {name[prefix:]: one for name, one in state.items() if name.startswith(_HISTOGRAM)}
        )
        restored._minimum = own["minimum"].astype(np.float32)
        restored._maximum = own["maximum"].astype(np.float32)
        restored._sum = own["sum"].astype(np.float64) if "sum" in own else None
        restored._gram = own["gram"].astype(np.float64) if "gram" in own else None
        return restored

    def _layout(self) -> str:
        channels = "no channels" if self._sum is None else f"{self._sum.size} channels"
        return channels + (" with second moments" if self._gram is not None else "")

    def _check_shape(self, rows: NDArray[np.float32]) -> None:
        if self._sum is None or (rows.ndim == 2 and rows.shape[1] == self._sum.size):
            return
        raise CalibrationError(
            f"rows of shape {list(rows.shape)} do not fit statistics of {self._sum.size} channels",
            hint="give float32 rows [tokens, channels] of one tensor",
        )


def _check_finite(
    rows: NDArray[np.float32], low: NDArray[np.float32], high: NDArray[np.float32]
) -> None:
    """Refuse NaN and infinity; NaN survives both a minimum and a maximum."""
    wrong = np.flatnonzero(~(np.isfinite(low) & np.isfinite(high)))
    if wrong.size:
        raise CalibrationError(
            "calibration gave NaN or infinity",
            why=f"{int(np.sum(~np.isfinite(rows)))} of {rows.size} values"
            + (f", first in channel {wrong[0]} of {low.size}" if low.size > 1 else ""),
            hint="check that the FP32 graph gives finite values for the calibration texts",
        )


def _second_moments(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return X^T X of rows X, shape [channels, channels], float32."""
    with np.errstate(over="ignore", invalid="ignore"):
        moments = rows.T @ rows
    # No entry is larger than the largest on the diagonal (Cauchy and Schwarz).
    if not np.isfinite(moments.diagonal()).all():
        raise CalibrationError(
            "second moments overflow float32",
            why=f"the largest absolute value is {float(np.abs(rows).max())}",
            hint="check the FP32 graph: values above 1e17 are not activations",
        )
    return moments
