"""From one calibration table to the int8 form of every linear layer.

Everything that costs time is done here once for a graph and a scheme; recipes then only pick which
layers take their int8 form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from targets.contract import Calibrator, IntegerScheme
from targets.errors import CalibrationError
from targets.quantization.calibrators import Range, choose_range
from targets.quantization.correction import corrected_bias, round_compensated
from targets.quantization.graph import to_array
from targets.quantization.integers import (
    activation_parameters,
    round_weight,
    weight_limit,
    weight_scale,
)
from targets.quantization.layers import EncoderLayers, LinearLayer
from targets.quantization.plan import LayerPlan
from targets.quantization.smoothing import smooth
from targets.quantization.statistics import TensorStatistics
from targets.quantization.table import CalibrationTable

RANGE_MARGIN = 1.1
"""Smoothed ranges are this much wider than what was seen: every channel comes near their ends, so
texts unlike the calibration texts would be clipped in many of them."""

Matrix = NDArray[np.float32]
_FLOAT = np.dtype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """How ranges, weights and biases are found, with nothing left open.

    Args:
        integers: types of activations and weights.
        symmetric: activations have no zero point.
        calibrator: "minmax", "percentile", "entropy" or "mse"; of no effect where activations
            are smoothed, which sets every channel's own extremes.
        smooth: outliers of activations are moved into the weights.
        correct: weights are rounded, and biases set, so that outputs move least.
    """

    integers: IntegerScheme = "U8S8"
    symmetric: bool = False
    calibrator: Calibrator = "minmax"
    smooth: bool = True
    correct: bool = True

    @property
    def words(self) -> str:
        """The method in a few words."""
        ranges = "smoothed" if self.smooth else self.calibrator
        return f"{ranges}, {'compensated' if self.correct else 'nearest'} rounding"


class Preparation:
    """Finds int8 forms by several methods; what they share is computed once.

    Args:
        model: the float graph, its weights in memory.
        layers: what `read_layers` found in it.
        table: statistics of the inputs of these layers.
        divisors: of activations whose smoothing is settled already, shape [channels].

    Raises:
        CalibrationError: the table lacks an activation, or is of another graph.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        layers: EncoderLayers,
        table: CalibrationTable,
        divisors: Mapping[str, Matrix] | None = None,
    ) -> None:
        self._weights: dict[str, NDArray[Any]] = {
            one.name: to_array(one) for one in model.graph.initializer
        }
        self._linears = layers.linears
        self._groups = by_activation(layers.linears)
        self._statistics = [_statistics_of(group, table) for group in self._groups]
        self._settled = divisors or {}
        self._divisors: dict[tuple[int, bool], Matrix] = {}

    def plans(
        self,
        method: Method,
        *,
        reduce_range: Callable[[LinearLayer], bool] = lambda _: False,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> tuple[LayerPlan, ...]:
        """Find the int8 form of every linear layer.

        Args:
            method: how.
            reduce_range: whose weights keep seven bits.
            progress: called after every activation.

        Returns:
            One plan for each linear layer, in execution order.
        """
        plans: dict[str, LayerPlan] = {}
        for number, (group, found) in enumerate(zip(self._groups, self._statistics, strict=True)):
            matrices = [_matrix(layer, self._weights) for layer in group]
            one = _Group(
                layers=group,
                matrices=matrices,
                biases=[None if x.bias is None else self._weights[x.bias] for x in group],
                statistics=found,
                method=method,
                divisor=self._divisor(number, matrices, method),
                reduced=[reduce_range(layer) for layer in group],
            )
            plans |= {plan.layer.node: plan for plan in one.plans()}
            progress(number + 1, len(self._groups))
        return tuple(plans[layer.node] for layer in self._linears)

    def weight(self, layer: LinearLayer) -> NDArray[np.floating]:
        """Return a layer's own weight as the graph stores it."""
        return self._weights[layer.weight]

    def _divisor(self, group: int, matrices: Sequence[Matrix], method: Method) -> Matrix:
        if not method.smooth:
            return np.ones(matrices[0].shape[1], np.float32)
        settled = self._settled.get(self._groups[group][0].activation)
        if settled is not None:
            return settled
        key = (group, method.symmetric)
        if key not in self._divisors:
            self._divisors[key] = smooth(
                self._statistics[group], np.concatenate(matrices), symmetric=method.symmetric
            )
        return self._divisors[key]


def _statistics_of(group: Sequence[LinearLayer], table: CalibrationTable) -> TensorStatistics:
    found = table.tensors.get(group[0].activation)
    if found is None:
        raise CalibrationError(
            f"the table has no statistics of {group[0].activation!r}",
            why=f"the input of {group[0].path}",
            hint="calibrate with the graph that is quantized",
        )
    return found


def _matrix(layer: LinearLayer, weights: Mapping[str, NDArray[Any]]) -> Matrix:
    """Return a layer's weight as [out, in], float32."""
    weight: Matrix = weights[layer.weight].astype(np.float32, copy=False)
    return weight if layer.output_axis == 0 else np.ascontiguousarray(weight.T)


def by_activation(linears: Sequence[LinearLayer]) -> tuple[tuple[LinearLayer, ...], ...]:
    """Group layers that read the same tensor (query, key and value), in execution order."""
    first = {layer.activation: number for number, layer in reversed([*enumerate(linears)])}
    ordered = sorted(linears, key=lambda layer: first[layer.activation])
    return tuple(tuple(group) for _, group in groupby(ordered, lambda layer: layer.activation))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """The layers that read one activation; they share its divisor and its range."""

    layers: tuple[LinearLayer, ...]
    matrices: Sequence[Matrix]
    biases: Sequence[NDArray[np.floating] | None]
    statistics: TensorStatistics
    method: Method
    divisor: Matrix
    reduced: Sequence[bool]

    def plans(self) -> Iterator[LayerPlan]:
        """Yield one plan for each layer."""
        chosen = self._range()
        scaled = [matrix * self.divisor for matrix in self.matrices]
        steps = [
            weight_scale(matrix, 0, reduce_range=reduced)
            for matrix, reduced in zip(scaled, self.reduced, strict=True)
        ]
        rounded = self._round(scaled, steps, chosen)
        for number, layer in enumerate(self.layers):
            back = rounded[number] * steps[number][:, None]
            yield LayerPlan(
                layer=layer,
                activation=chosen,
                integers=self.method.integers,
                symmetric=self.method.symmetric,
                divisor=self.divisor if self.method.smooth else None,
                weight_scale=steps[number],
                weight_integers=_stored(rounded[number], layer),
                bias=self._bias(scaled[number], back, self.biases[number]),
                reduce_range=self.reduced[number],
            )

    def _range(self) -> Range:
        method, statistics = self.method, self.statistics
        if not method.smooth or statistics.channel_maximum is None:
            return choose_range(statistics, method.calibrator, symmetric=method.symmetric)
        found = smoothed_range(statistics, self.divisor, symmetric=method.symmetric)
        return found or choose_range(statistics, "minmax", symmetric=method.symmetric)

    def _round(
        self, scaled: Sequence[Matrix], steps: Sequence[NDArray[np.floating]], chosen: Range
    ) -> list[NDArray[np.int8]]:
        gram = self.statistics.gram
        if not self.method.correct or gram is None:
            return [
                round_weight(matrix, step, 0, reduce_range=reduced)
                for matrix, step, reduced in zip(scaled, steps, self.reduced, strict=True)
            ]
        parameters = activation_parameters(
            chosen, self.method.integers, symmetric=self.method.symmetric, dtype=_FLOAT
        )
        limits = [
            np.full(len(matrix), weight_limit(reduced))
            for matrix, reduced in zip(scaled, self.reduced, strict=True)
        ]
        rounded = round_compensated(
            np.concatenate(scaled),
            np.concatenate(steps).astype(np.float32),
            gram / np.outer(self.divisor, self.divisor),
            float(parameters.scale) ** 2 / 12,
            np.concatenate(limits),
        )
        return np.split(rounded, np.cumsum([len(matrix) for matrix in scaled])[:-1])

    def _bias(
        self, scaled: Matrix, rounded: Matrix, bias: NDArray[np.floating] | None
    ) -> Matrix | None:
        mean = self.statistics.channel_mean
        if not self.method.correct or bias is None or mean is None:
            return None
        return corrected_bias(
            scaled, rounded, mean / self.divisor, bias.astype(np.float32).reshape(-1)
        )


def smoothed_range(
    statistics: TensorStatistics, divisor: Matrix, *, symmetric: bool
) -> Range | None:
    """Return the range of an activation behind its divisors; None where it is zero everywhere.

    Args:
        statistics: of the activation, with channels.
        divisor: shape [channels].
        symmetric: the range is as wide on both sides.
    """
    maximum, minimum = statistics.channel_maximum, statistics.channel_minimum
    assert maximum is not None and minimum is not None  # the callers' check
    high = RANGE_MARGIN * max(float((maximum / divisor).max()), 0.0)
    low = RANGE_MARGIN * min(float((minimum / divisor).min()), 0.0)
    if high == low:
        return None
    if symmetric:
        high = max(high, -low)
        low = -high
    return Range(low=low, high=high)


def _stored(rounded: NDArray[np.int8], layer: LinearLayer) -> NDArray[np.int8]:
    """Turn [out, in] into the order that the weight is stored in."""
    return rounded if layer.output_axis == 0 else np.ascontiguousarray(rounded.T)
