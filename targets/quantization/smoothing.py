"""Outliers of activations moved into the weights, channel by channel.

y = x W = (x / d) (d W): a layer computes the same when each input channel is divided by its own
divisor and the weights of that channel are multiplied by it. Dividing narrows the range that one
per-tensor scale has to cover; multiplying widens the range that each output channel's scale has
to cover. SmoothQuant (Xiao et al. 2022, equation 4) settles the trade with one strength alpha for
all layers. Here the error itself is written down and made as small as it gets, for every layer by
itself:

    E(d) = E_x + E_w
    E_x  = step_x(d)^2 / 12 * sum_c |W_c|^2 d_c^2           activations, one step for all
    E_w  = sum_o step_o(d)^2 / 12 * sum_c E[x_c^2] / d_c^2   weights, one step per output channel

with uniform rounding errors (Bennett 1948) that do not depend on each other. Steps are widest
ranges, hence maxima; p-norms stand in for them, so that gradients exist.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from targets.errors import CalibrationError
from targets.quantization.statistics import TensorStatistics

Floats = NDArray[np.float64]

ACTIVATION_STEPS = 255
WEIGHT_STEPS = 127

ROUNDING_GAIN = 1.0
"""How much the weights' error counts. Compensated rounding leaves a quarter of it, but an error of
weights is the same for every token of a text, and pooling does not take it away as it does errors
of activations; on texts unlike the calibration texts less is compensated, too."""

_NORMS = (12.0, 48.0)
_STEPS_PER_NORM = 40
_RATE = 0.05
_STRENGTHS = (0.5, 0.65, 0.75, 0.85, 0.95, 1.0)
_TINY = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """The error that a layer's output is expected to get, summed over output channels.

    Args:
        activations: mean square caused by rounding activations.
        weights: mean square caused by rounding weights.
    """

    activations: float
    weights: float

    @property
    def total(self) -> float:
        """Both together, as compensated rounding leaves them."""
        return self.activations + ROUNDING_GAIN * self.weights


@dataclass(frozen=True, slots=True)
class _Layer:
    """One activation with all weights that read it, in float64.

    high, low: shape [channels], how far values go above and below zero.
    square: shape [channels], mean of squares. weight: shape [out, channels].
    power: shape [channels], sum of the weight's squares over outputs.
    """

    high: Floats
    low: Floats
    square: Floats
    weight: Floats
    power: Floats
    symmetric: bool

    def expect(self, divisor: Floats) -> Expected:
        high, low = (self.high / divisor).max(), (self.low / divisor).max()
        span = 2.0 * max(high, low) if self.symmetric else high + low
        steps = np.abs(self.weight * divisor).max(axis=1) / WEIGHT_STEPS
        return Expected(
            activations=float((span / ACTIVATION_STEPS) ** 2 / 12 * (self.power @ divisor**2)),
            weights=float(np.square(steps).sum() / 12 * (self.square / divisor**2).sum()),
        )


def smooth(
    statistics: TensorStatistics, weight: NDArray[np.float32], *, symmetric: bool
) -> NDArray[np.float32]:
    """Return the divisors of an activation's channels that leave the least expected error.

    The best of SmoothQuant's strengths is the start, and the result never expects more error
    than that, or than no smoothing at all.

    Args:
        statistics: of the activation, with channels.
        weight: of all layers that read it, shape [out, channels], one below the other.
        symmetric: activations have no zero point.

    Returns:
        Shape [channels], float32, positive, geometric mean 1.

    Raises:
        CalibrationError: the statistics have no channels, or not the weight's.
    """
    layer = _layer(statistics, weight, symmetric)
    if not layer.weight.any():  # no output, no error; log E has no gradient
        return np.ones(layer.high.shape, np.float32)
    starts = [np.ones_like(layer.high), *(_migrated(layer, alpha) for alpha in _STRENGTHS)]
    start = min(starts, key=lambda one: layer.expect(one).total)
    found = _descend(layer, start)
    best = min((start, found), key=lambda one: layer.expect(one).total)
    return np.asarray(best / np.exp(np.log(best).mean()), np.float32)


def expected_error(
    statistics: TensorStatistics,
    weight: NDArray[np.float32],
    divisor: NDArray[np.float32] | None,
    *,
    symmetric: bool,
) -> Expected:
    """Return the error that a layer's output is expected to get in int8.

    Args:
        statistics: of the activation, with channels.
        weight: shape [out, channels].
        divisor: shape [channels]; None: not smoothed.
        symmetric: activations have no zero point.

    Raises:
        CalibrationError: the statistics have no channels, or not the weight's.
    """
    layer = _layer(statistics, weight, symmetric)
    return layer.expect(np.ones_like(layer.high) if divisor is None else divisor.astype(np.float64))


def _layer(statistics: TensorStatistics, weight: NDArray[np.float32], symmetric: bool) -> _Layer:
    maximum, minimum = statistics.channel_maximum, statistics.channel_minimum
    if maximum is None or minimum is None or weight.shape[1:] != maximum.shape:
        found = "none" if maximum is None else str(maximum.size)
        raise CalibrationError(
            f"smoothing needs statistics of {weight.shape[1]} channels, there are {found}",
            hint="calibrate again with the graph that is quantized",
        )
    high, low = np.maximum(maximum, 0).astype(np.float64), -np.minimum(minimum, 0).astype(float)
    widest = max(float(high.max()), float(low.max()), _TINY)
    square = (
        np.square((high + low) / 4)  # two standard deviations to either side
        if statistics.gram is None
        else np.diag(statistics.gram).astype(np.float64)
    )
    return _Layer(
        high=high + _TINY * widest,
        low=low + _TINY * widest,
        square=square + _TINY * widest**2,
        weight=weight.astype(np.float64),
        power=np.square(weight.astype(np.float64)).sum(axis=0),
        symmetric=symmetric,
    )


def _migrated(layer: _Layer, alpha: float) -> Floats:
    """SmoothQuant's own divisors; silent channels count as a thousandth of the loudest."""
    loud = np.maximum(layer.high, layer.low)
    heavy = np.abs(layer.weight).max(axis=0)
    loud = np.maximum(loud, 1e-3 * loud.max())
    heavy = np.maximum(heavy, 1e-3 * max(heavy.max(), _TINY))
    return np.asarray(loud**alpha / heavy ** (1 - alpha))


# ------------------------------------------------------------------------------ descent


def _descend(layer: _Layer, start: Floats) -> Floats:
    """Follow the gradient in the logarithm of the divisors (Adam, Kingma & Ba 2015)."""
    log = np.log(start)
    first, second = np.zeros_like(log), np.zeros_like(log)
    best, least = start, layer.expect(start).total
    step = 0
    for norm in _NORMS:
        weights = _Rows.of(layer.weight, norm)
        for _ in range(_STEPS_PER_NORM):
            step += 1
            slope = _slope(layer, weights, log, norm)
            first = 0.9 * first + 0.1 * slope
            second = 0.99 * second + 0.01 * slope**2
            move = (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.99**step)) + _TINY)
            log = log - _RATE * move
            if step % 10 == 0 and (here := layer.expect(np.exp(log)).total) < least:
                best, least = np.exp(log), here
    return best


@dataclass(frozen=True, slots=True)
class _Rows:
    """|W_oc|^p with every row's largest value taken out, so that no power leaves float64."""

    powers: Floats
    largest: Floats

    @classmethod
    def of(cls, weight: Floats, norm: float) -> _Rows:
        largest = np.maximum(np.abs(weight).max(axis=1), _TINY)
        return cls((np.abs(weight) / largest[:, None]) ** norm, largest)


def _slope(layer: _Layer, rows: _Rows, log: Floats, norm: float) -> Floats:
    """Return the gradient of log E with respect to the logarithm of the divisors."""
    divisor = np.exp(log)
    span, span_slope = _span(layer, divisor, norm)
    power = layer.power * divisor**2
    e_x = span**2 * power.sum() / (12 * ACTIVATION_STEPS**2)
    d_x = e_x * (2 * span_slope / span + 2 * power / power.sum())

    top = divisor.max()
    scaled = (divisor / top) ** norm
    sums = np.maximum(rows.powers @ scaled, 1e-300)
    squares = (rows.largest * top * sums ** (1 / norm)) ** 2
    squares_slope = 2 * scaled * ((squares / sums) @ rows.powers)
    noise = layer.square / divisor**2
    e_w = ROUNDING_GAIN * squares.sum() * noise.sum() / (12 * WEIGHT_STEPS**2)
    d_w = e_w * (squares_slope / squares.sum() - 2 * noise / noise.sum())
    return np.asarray((d_x + d_w) / (e_x + e_w))


def _span(layer: _Layer, divisor: Floats, norm: float) -> tuple[float, Floats]:
    """Return the smoothed tensor's width and its gradient."""
    if layer.symmetric:
        width, slope = _largest(np.maximum(layer.high, layer.low) / divisor, norm)
        return 2 * width, 2 * slope
    high, high_slope = _largest(layer.high / divisor, norm)
    low, low_slope = _largest(layer.low / divisor, norm)
    return high + low, high_slope + low_slope


def _largest(values: Floats, norm: float) -> tuple[float, Floats]:
    """Return the p-norm of positive values and its gradient with respect to -log(values)."""
    top = float(values.max())
    powers = (values / top) ** norm
    total = float(powers.sum())
    found = top * total ** (1 / norm)
    return found, -found * powers / total
