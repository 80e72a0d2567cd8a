"""Weights rounded, and biases set, so that a layer's output moves least.

Rounding every weight to its nearest step ignores that inputs move together. Compensated rounding
(Frantar et al., GPTQ, 2023, algorithm 1) rounds one input channel after the other and lets the
channels that are still float make up for each error, as far as the second moments of the inputs
say they can. The rounding of the activations is noise that no channel can make up for; its
variance is added to the moments' diagonal, which also keeps the system well conditioned.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from targets.errors import CalibrationError
from targets.quantization.plan import LayerPlan

Floats = NDArray[np.float64]

_BLOCK = 32
"""Channels whose errors are passed on together (Frantar et al., "lazy batch updates")."""
_SMALL = 128
"""Triangular matrices up to this size are inverted in one piece."""
_DAMPING = 0.1
"""Share of the mean second moment that is added to all of them. GPTQ takes 0.01 (section 3.3); with
that, the worst text unlike the calibration set fell to a cosine of .978, with 0.1 to .997."""


def round_compensated(
    weight: NDArray[np.float32],
    scale: NDArray[np.float32],
    moments: NDArray[np.float32] | Floats,
    noise: float,
    limit: int | NDArray[np.int64] = 127,
) -> NDArray[np.int8]:
    """Round a weight matrix to steps so that its products with the inputs move least.

    Args:
        weight: shape [out, channels].
        scale: step of each output channel, shape [out].
        moments: mean of x x^T over tokens of the inputs as the weight sees them, shape
            [channels, channels].
        noise: variance of the error that rounding the inputs makes.
        limit: largest absolute integer, one for all or shape [out].

    Returns:
        Integers, shape [out, channels], int8.

    Raises:
        CalibrationError: the moments do not fit the weight, or cannot be those of any inputs.
    """
    channels = weight.shape[1]
    if moments.shape != (channels, channels):
        raise CalibrationError(
            f"second moments of shape {moments.shape} for a weight of {channels} channels",
            hint="calibrate again with the graph that is quantized",
        )
    hessian = moments.astype(np.float64)
    mean = float(np.trace(hessian)) / channels
    hessian[np.diag_indices(channels)] += noise + _DAMPING * mean + np.finfo(np.float32).tiny
    # the loudest channels first: what comes late has little left to make up for it
    order = np.argsort(-np.diag(hessian), kind="stable")
    factor = _upper_factor_of_inverse(hessian[np.ix_(order, order)])
    by_channel = np.ascontiguousarray(weight.T[order], np.float64)
    rounded = _round_channels(by_channel, scale, factor, limit)
    result = np.empty(weight.shape, np.int8)
    result[:, order] = rounded.T
    return result


def corrected_bias(
    weight: NDArray[np.float32],
    rounded: NDArray[np.float32],
    channel_mean: Floats,
    bias: NDArray[np.float32] | None,
) -> NDArray[np.float32]:
    """Return the bias that keeps the mean of a layer's output (Nagel et al. 2019, section 4.2).

    Args:
        weight: the float weight, shape [out, channels].
        rounded: what the integers stand for, same shape.
        channel_mean: mean of the inputs as the weight sees them, shape [channels].
        bias: shape [out]; None: zero.
    """
    lost = (weight.astype(np.float64) - rounded) @ channel_mean
    return np.asarray(lost if bias is None else bias + lost, np.float32)


def rounding_corrected(plan: LayerPlan, error: Floats) -> LayerPlan:
    """Return a plan whose bias takes what rounding the input does to the output on average.

    Rounding is no noise around zero where most values of a channel lie within one step of each
    other, as behind GELU: all of them are then rounded to the same side.

    Args:
        plan: with integers and scales. One without a bias of its own is returned as it is.
        error: mean of rounded less exact inputs, behind the divisors, shape [channels].
    """
    if plan.bias is None or plan.weight_integers is None or plan.weight_scale is None:
        return plan
    turned = plan.weight_integers.T if plan.layer.output_axis else plan.weight_integers
    caused = (turned.astype(np.float64) @ error) * plan.weight_scale
    return replace(plan, bias=np.asarray(plan.bias - caused, np.float32))


def _upper_factor_of_inverse(hessian: Floats) -> Floats:
    """Return the upper triangular U with U^T U the inverse of a symmetric positive matrix.

    Cholesky from the last channel to the first gives H = R R^T with R upper triangular, and U is
    its inverse. H itself is never inverted, which would cost twice as much.
    """
    try:
        if not np.isfinite(hessian).all():  # LAPACK passes NaN on without a word
            raise np.linalg.LinAlgError("they are not finite")
        upper = np.ascontiguousarray(np.linalg.cholesky(hessian[::-1, ::-1])[::-1, ::-1])
        return _inverse_of_upper(upper)
    except np.linalg.LinAlgError as error:
        raise CalibrationError(
            "second moments of a layer's inputs are no covariance",
            why=str(error),
            hint="calibrate again; the table may be damaged",
        ) from error


def _inverse_of_upper(matrix: Floats) -> Floats:
    """Invert an upper triangular matrix, half by half."""
    size = len(matrix)
    if size <= _SMALL:
        return np.asarray(np.linalg.inv(matrix), np.float64)
    middle = size // 2
    inverse = np.zeros_like(matrix)
    inverse[:middle, :middle] = _inverse_of_upper(matrix[:middle, :middle])
    inverse[middle:, middle:] = _inverse_of_upper(matrix[middle:, middle:])
    inverse[:middle, middle:] = (
        -inverse[:middle, :middle] @ matrix[:middle, middle:] @ inverse[middle:, middle:]
    )
    return inverse


def _round_channels(
    weight: Floats, scale: NDArray[np.float32], factor: Floats, limit: int | NDArray[np.int64]
) -> NDArray[np.int8]:
    """Round input channels one after the other; each error moves those that come later.

    `weight` and the result have shape [channels, out], so that a channel lies in one piece of
    memory; `weight` is used up.
    """
    steps = scale.astype(np.float64)
    rounded = np.empty(weight.shape, np.int8)
    for start in range(0, len(weight), _BLOCK):
        stop = min(start + _BLOCK, len(weight))
        errors = np.empty((stop - start, weight.shape[1]))
        for channel in range(start, stop):
            integers = np.clip(np.rint(weight[channel] / steps), -limit, limit)
            rounded[channel] = integers
            error = (weight[channel] - integers * steps) / factor[channel, channel]
            weight[channel:stop] -= np.outer(factor[channel, channel:stop], error)
            errors[channel - start] = error
        weight[stop:] -= factor[start:stop, stop:].T @ errors
    return rounded
