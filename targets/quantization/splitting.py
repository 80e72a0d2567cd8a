"""Loud channels inside feed-forward blocks split into copies, each with a part of the weight.

A channel that is loud and heavy at once defeats smoothing: dividing it narrows the activation's
range and widens the weight's. Inside a feed-forward block it can be had twice for little: the
layer in front gives the channel again (a repeated row of its weight and bias, the same through any
element-wise function), and the layer behind weighs each copy by a half. The function stays the
same; no operation is added, the block gets a few channels wider. Zhao et al. 2019 split outlier
channels of weights in this way; here the layer in front already exists, so activations profit too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from targets.quantization.graph import GraphIndex, to_array
from targets.quantization.layers import EncoderLayers, LinearLayer
from targets.quantization.smoothing import expected_error, smooth
from targets.quantization.statistics import TensorStatistics
from targets.quantization.table import CalibrationTable

Copies = NDArray[np.int64]

_ELEMENT_WISE = frozenset(
    {"Gelu", "Relu", "Elu", "Selu", "LeakyRelu", "Tanh", "Sigmoid", "HardSwish", "Mish", "Softplus"}
)
_WIDER_BY = 48
"""One more channel for so many: 2 % more products in the two layers of the block."""
_MULTIPLE = 16
"""Kernels like widths that are multiples of this."""
_MOST_WIDER_BY = 16
"""Blocks that would grow by more than one channel in so many are left as they are."""
_LEAST_GAIN = 0.2
"""Share of the expected error that must go, or the block stays as wide as it is."""


def choose_copies(
    model: onnx.ModelProto, layers: EncoderLayers, table: CalibrationTable, *, symmetric: bool
) -> dict[str, Copies]:
    """Say which channels are worth having more than once.

    Args:
        model: the float graph, its weights in memory.
        layers: what `read_layers` found in it.
        table: statistics of the layers' inputs.
        symmetric: activations have no zero point.

    Returns:
        Path of the layer that ends a block → how often it reads each input channel, shape [in].
    """
    index = GraphIndex(model.graph)
    found = {}
    for down in layers.linears:
        statistics = table.tensors.get(down.activation)
        if statistics is None or _front_of(down, layers, index) is None:
            continue
        channels = _num_channels(statistics)
        if not channels or _num_more(statistics) * _MOST_WIDER_BY > channels:
            continue
        weight = _matrix(down, index)
        copies = _loudest(statistics, weight)
        wide = repeat_statistics(statistics, copies)
        before, after = (
            expected_error(
                one, matrix, smooth(one, matrix, symmetric=symmetric), symmetric=symmetric
            )
            for one, matrix in (
                (statistics, weight),
                (wide, _repeated(weight, copies, axis=1, shared=True)),
            )
        )
        if after.total < (1.0 - _LEAST_GAIN) * before.total:
            found[down.path] = copies
    return found


def split_channels(
    model: onnx.ModelProto, layers: EncoderLayers, copies: Mapping[str, Copies]
) -> onnx.ModelProto:
    """Return a graph that computes the same with the chosen channels repeated.

    Args:
        model: the float graph; it is not changed.
        layers: what `read_layers` found in it.
        copies: from `choose_copies` of the same graph.
    """
    if not copies:
        return model
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    index = GraphIndex(changed.graph)
    for down in layers.linears:
        up = _front_of(down, layers, index)
        if down.path not in copies or up is None:
            continue
        times = copies[down.path]
        _store(index, down.weight, times, axis=1 - down.output_axis, shared=True)
        _store(index, up.weight, times, axis=up.output_axis, shared=False)
        if up.bias is not None:
            _store(index, up.bias, times, axis=-1, shared=False)
    stale = [one for one in changed.graph.value_info if one.name not in index.outputs]
    for one in stale:  # shapes inside the blocks are no longer what they were
        changed.graph.value_info.remove(one)
    return changed


def split_table(
    table: CalibrationTable, layers: EncoderLayers, copies: Mapping[str, Copies]
) -> CalibrationTable:
    """Return the statistics of the graph that `split_channels` gives."""
    tensors = dict(table.tensors)
    for layer in layers.linears:
        if layer.path in copies:
            tensors[layer.activation] = repeat_statistics(
                table.tensors[layer.activation], copies[layer.path]
            )
    return replace(table, tensors=tensors)


def repeat_statistics(statistics: TensorStatistics, copies: Copies) -> TensorStatistics:
    """Return the statistics of a tensor whose channels are repeated.

    Its histogram stays that of the narrow tensor, which holds the same values.
    """
    at = np.repeat(np.arange(len(copies)), copies)

    def of(channels: NDArray[Any] | None) -> NDArray[Any] | None:
        return None if channels is None else channels[at]

    gram = statistics.gram
    return replace(
        statistics,
        channel_absmax=of(statistics.channel_absmax),
        channel_minimum=of(statistics.channel_minimum),
        channel_maximum=of(statistics.channel_maximum),
        channel_mean=of(statistics.channel_mean),
        gram=None if gram is None else gram[np.ix_(at, at)],
    )


def _front_of(down: LinearLayer, layers: EncoderLayers, index: GraphIndex) -> LinearLayer | None:
    """Return the layer in front of a block's last one, if nothing else reads what is between."""
    if not down.ends_ffn:
        return None
    outputs = {layer.output: layer for layer in layers.linears}
    name = down.activation
    while name not in outputs:
        maker = index.producers.get(name)
        if maker is None or maker.op_type not in _ELEMENT_WISE or not _read_once(name, index):
            return None
        name = maker.input[0]
    up = outputs[name]
    own = [up.weight, down.weight, *([] if up.bias is None else [up.bias])]
    alone = all(_read_once(tensor, index) for tensor in (name, *own))
    return up if alone and not up.transposed and not down.transposed else None


def _read_once(name: str, index: GraphIndex) -> bool:
    return len(index.readers.get(name, [])) == 1 and name not in index.outputs


def _matrix(layer: LinearLayer, index: GraphIndex) -> NDArray[np.float32]:
    weight = np.asarray(to_array(index.tensors[layer.weight]), np.float32)
    return weight if layer.output_axis == 0 else np.ascontiguousarray(weight.T)


def _loudest(statistics: TensorStatistics, weight: NDArray[np.float32]) -> Copies:
    """Copy, one after the other, the channel whose loudest value weighs most."""
    loud = statistics.channel_absmax
    assert loud is not None  # choose_copies passes over such tensors
    heavy = loud.astype(np.float64) * np.abs(weight).max(axis=0)
    copies = np.ones(len(heavy), np.int64)
    for _ in range(_num_more(statistics)):
        copies[int(np.argmax(heavy / copies))] += 1
    return copies


def _num_channels(statistics: TensorStatistics) -> int:
    return 0 if statistics.channel_absmax is None else len(statistics.channel_absmax)


def _num_more(statistics: TensorStatistics) -> int:
    """Return how many channels a block gets more."""
    return -(-_num_channels(statistics) // (_WIDER_BY * _MULTIPLE)) * _MULTIPLE


def _repeated(
    values: NDArray[np.floating], copies: Copies, axis: int, *, shared: bool
) -> NDArray[np.float32]:
    """Repeat along an axis; shared: the copies add up to the original."""
    wide = np.repeat(values, copies, axis=axis)
    if shared:
        shape = [1] * values.ndim
        shape[axis] = -1
        wide = wide / np.repeat(copies, copies).reshape(shape)
    return np.asarray(wide, values.dtype)


def _store(index: GraphIndex, name: str, copies: Copies, axis: int, *, shared: bool) -> None:
    tensor = index.tensors[name]
    values = np.asarray(to_array(tensor))
    tensor.CopyFrom(numpy_helper.from_array(_repeated(values, copies, axis, shared=shared), name))
