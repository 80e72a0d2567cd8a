"""The float graph changed so that it computes the same and loses less in int8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from exporter.optimize.activation_sample import ActivationSample, Changes
from targets.contract import QdqScheme
from targets.quantization.centring import (
    Centre,
    centre_table,
    choose_centres,
    middle_of,
    movable_norms,
    shift_norms,
)
from targets.quantization.layers import EncoderLayers
from targets.quantization.splitting import choose_copies, split_channels, split_table
from targets.quantization.table import CalibrationTable


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedGraph:
    """A graph that computes the same and is easier to quantize, with its statistics.

    Args:
        model: the changed graph.
        table: statistics of its layers' inputs.
        copies: see `splitting.split_channels`.
        centres: see `centring.choose_centres`.
    """

    model: onnx.ModelProto
    table: CalibrationTable
    copies: Mapping[str, NDArray[np.int64]]
    centres: Mapping[str, Centre]

    @property
    def shifts(self) -> dict[str, NDArray[np.float32]]:
        """What is subtracted from the outputs of LayerNorms."""
        return {name: one.shift for name, one in self.centres.items()}

    @property
    def divisors(self) -> dict[str, NDArray[np.float32]]:
        """Smoothing that the shifts were chosen for."""
        return {name: one.divisor for name, one in self.centres.items()}

    def changes(self, layers: EncoderLayers) -> Changes:
        """Return the changes by activation."""
        copies = {
            layer.activation: self.copies[layer.path]
            for layer in layers.linears
            if layer.path in self.copies
        }
        return Changes(copies=copies, shifts=self.shifts)


def changed_graph(
    model: onnx.ModelProto,
    layers: EncoderLayers,
    table: CalibrationTable,
    scheme: QdqScheme,
    sample: ActivationSample,
) -> ChangedGraph:
    """Split loud channels and centre LayerNorms, where activations may be smoothed.

    Args:
        model: the float graph, its weights in memory.
        layers: what `read_layers` found in it.
        table: its statistics.
        scheme: of the integers.
        sample: some texts in the same graph.
    """
    if scheme.smoothing == "off" or scheme.calibrator not in ("auto", "minmax"):
        return ChangedGraph(model=model, table=table, copies={}, centres={})
    copies = choose_copies(model, layers, table, symmetric=scheme.symmetric)
    wide = split_channels(model, layers, copies)
    split = split_table(table, layers, copies)
    middles = {
        norm.output: middle
        for norm in movable_norms(wide, layers)
        if (middle := middle_of(split.tensors[norm.output])) is not None
    }
    centres = choose_centres(
        wide,
        layers,
        split,
        sample.of_norms(middles),
        integers=scheme.integers,
        symmetric=scheme.symmetric,
    )
    return ChangedGraph(
        model=shift_norms(wide, layers, {name: one.shift for name, one in centres.items()}),
        table=centre_table(split, centres),
        copies=copies,
        centres=centres,
    )
