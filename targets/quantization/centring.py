"""Outputs of LayerNorms moved to the middle of what they span, at no cost in the graph.

One range has to hold all channels of an activation; a channel whose values lie off zero takes
room that nobody uses. BERT's layers read x = LayerNorm(...), and so does the residual. With x - z
instead (z goes off the LayerNorm's bias), a linear layer computes the same with the bias b + W z,
and the sum behind a block is the same when z is added to the bias of the block's last layer. Only
stored vectors change. Wei et al. 2023 (Outlier Suppression+, section 3.1) shift channels and fold
the shift into LayerNorms; here the residual is repaid as well, and BERT has no operation more.

Within half a step z is free. It is chosen so that the first token lies on integers: in the first
layers of an encoder it ([CLS]) is the same in every text, every other token listens to it, and what
rounding does to it is the same error everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from targets.contract import IntegerScheme
from targets.quantization.calibrators import Range
from targets.quantization.graph import GraphIndex, attribute, to_array
from targets.quantization.integers import activation_parameters
from targets.quantization.layers import EncoderLayers, LinearLayer
from targets.quantization.prepare import by_activation, smoothed_range
from targets.quantization.smoothing import smooth
from targets.quantization.statistics import TensorStatistics
from targets.quantization.table import CalibrationTable

Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Norm:
    """A LayerNorm whose output can be moved.

    Args:
        output: the tensor.
        bias: stored tensor that is the LayerNorm's bias.
        readers: linear layers that read the output.
        repays: linear layer whose output is added to this one by the residual; None: no residual
            reads it.
    """

    output: str
    bias: str
    readers: tuple[LinearLayer, ...]
    repays: LinearLayer | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NormSample:
    """What some texts show of a LayerNorm's output.

    Args:
        middle: of what each channel spans in all texts, shape [channels].
        first: mean of the first tokens of texts, shape [channels].
        centred: statistics of the output less its middle, channels not kept apart.
    """

    middle: Vector
    first: NDArray[np.float64]
    centred: TensorStatistics


@dataclass(frozen=True, slots=True, kw_only=True)
class Centre:
    """How the output of one LayerNorm is moved.

    Args:
        shift: what is subtracted, half a step from the middle at most, shape [channels].
        divisor: smoothing of the moved output, shape [channels].
        statistics: of the output less its middle.
    """

    shift: Vector
    divisor: Vector
    statistics: TensorStatistics


def movable_norms(model: onnx.ModelProto, layers: EncoderLayers) -> tuple[Norm, ...]:
    """Find the LayerNorms whose output can be moved without an operation more.

    Everything that reads it must be a linear layer with a bias of its own, or one sum with the
    output of such a layer.

    Args:
        model: a float graph.
        layers: what `read_layers` found in it.
    """
    index = GraphIndex(model.graph)
    makers = {layer.output: layer for layer in layers.linears}
    found = (_norm_of(group, index, makers) for group in by_activation(layers.linears))
    return tuple(one for one in found if one is not None)


def _norm_of(
    group: Sequence[LinearLayer], index: GraphIndex, makers: Mapping[str, LinearLayer]
) -> Norm | None:
    name = group[0].activation
    node = index.producers.get(name)
    if node is None or node.op_type != "LayerNormalization" or name in index.outputs:
        return None
    if len(node.input) < 3 or attribute(node, "axis", -1) != -1 or not _own(node.input[2], index):
        return None
    products = {layer.node for layer in group}
    others = [reader for reader in index.readers[name] if reader.name not in products]
    repays = _repaying(others[0], name, index, makers) if len(others) == 1 else None
    if len(others) > 1 or (others and repays is None):
        return None
    changed = [*group, *([] if repays is None else [repays])]
    if not all(layer.bias is not None and _own(layer.bias, index) for layer in changed):
        return None
    return Norm(output=name, bias=node.input[2], readers=tuple(group), repays=repays)


def _repaying(
    node: onnx.NodeProto, name: str, index: GraphIndex, makers: Mapping[str, LinearLayer]
) -> LinearLayer | None:
    """Return the layer whose output a sum adds to the moved tensor."""
    if node.op_type != "Add" or list(node.input).count(name) != 1:
        return None
    other = next(one for one in node.input if one != name)
    layer = makers.get(other)
    return layer if layer is not None and index.only_reader(other) is node else None


def _own(name: str, index: GraphIndex) -> bool:
    return name in index.tensors and len(index.readers[name]) == 1


def shift_norms(
    model: onnx.ModelProto, layers: EncoderLayers, shifts: Mapping[str, Vector]
) -> onnx.ModelProto:
    """Return a graph that computes the same with the outputs of LayerNorms moved.

    Args:
        model: the float graph; it is not changed.
        layers: what `read_layers` found in it.
        shifts: output of a movable LayerNorm → what is subtracted from it, shape [channels].
    """
    norms = [norm for norm in movable_norms(model, layers) if norm.output in shifts]
    if not norms:
        return model
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    tensors = GraphIndex(changed.graph).tensors
    added: dict[str, NDArray[np.float64]] = {}
    for norm in norms:
        shift = shifts[norm.output].astype(np.float64)
        _sum(added, norm.bias, -shift)
        for layer in norm.readers:
            assert layer.bias is not None  # movable_norms
            _sum(added, layer.bias, _matrix(layer, tensors) @ shift)
        if norm.repays is not None:
            assert norm.repays.bias is not None  # movable_norms
            _sum(added, norm.repays.bias, shift)
    for name, values in added.items():
        stored = np.asarray(to_array(tensors[name]))
        moved = (stored + values.reshape(stored.shape)).astype(stored.dtype)
        tensors[name].CopyFrom(numpy_helper.from_array(moved, name))
    return changed


def middle_of(statistics: TensorStatistics) -> Vector | None:
    """Return the middle of what every channel spans, shape [channels]; None without channels."""
    low, high = statistics.channel_minimum, statistics.channel_maximum
    if low is None or high is None:
        return None
    return np.asarray((low.astype(np.float64) + high) / 2, np.float32)


def choose_centres(
    model: onnx.ModelProto,
    layers: EncoderLayers,
    table: CalibrationTable,
    samples: Mapping[str, NormSample],
    *,
    integers: IntegerScheme,
    symmetric: bool,
) -> dict[str, Centre]:
    """Say how the outputs of LayerNorms are moved.

    Args:
        model: the float graph, its weights in memory.
        layers: what `read_layers` found in it.
        table: statistics of the layers' inputs.
        samples: output of a LayerNorm → what some texts show of it; others are left where they
            are.
        integers: types of activations and weights.
        symmetric: activations have no zero point.
    """
    tensors = GraphIndex(model.graph).tensors
    found = {}
    for norm in movable_norms(model, layers):
        sample, statistics = samples.get(norm.output), table.tensors.get(norm.output)
        if sample is None or statistics is None:
            continue
        centred = _centred(statistics, sample)
        weight = np.concatenate([_matrix(layer, tensors) for layer in norm.readers])
        divisor = smooth(centred, weight.astype(np.float32), symmetric=symmetric)
        chosen = smoothed_range(centred, divisor, symmetric=symmetric)
        found[norm.output] = Centre(
            shift=_on_integers(sample, divisor, chosen, integers, symmetric),
            divisor=divisor,
            statistics=centred,
        )
    return found


def centre_table(table: CalibrationTable, centres: Mapping[str, Centre]) -> CalibrationTable:
    """Return the statistics of the graph that `shift_norms` gives, up to half a step.

    Extremes are those of channels around their middle: a range found from them is the one that
    the shift was chosen for.
    """
    moved = {name: one.statistics for name, one in centres.items()}
    return replace(table, tensors={**table.tensors, **moved})


def _on_integers(
    sample: NormSample,
    divisor: Vector,
    chosen: Range | None,
    integers: IntegerScheme,
    symmetric: bool,
) -> Vector:
    """Move a middle by half a step at most, so that the first token lies on integers."""
    if chosen is None:  # zero everywhere
        return sample.middle
    parameters = activation_parameters(
        chosen, integers, symmetric=symmetric, dtype=np.dtype(np.float32)
    )
    step = divisor.astype(np.float64) * float(parameters.scale)
    away = (sample.first - sample.middle) / step
    return np.asarray(sample.middle + (away - np.rint(away)) * step, np.float32)


def _centred(statistics: TensorStatistics, sample: NormSample) -> TensorStatistics:
    """Return the statistics of x - middle; the histogram is that of a sample."""
    low, high = statistics.channel_minimum, statistics.channel_maximum
    assert low is not None and high is not None  # it has a middle
    low, high = low - sample.middle, high - sample.middle
    mean, gram, shift = statistics.channel_mean, statistics.gram, sample.middle.astype(np.float64)
    if gram is not None and mean is not None:
        crossed = np.outer(shift, mean)
        gram = (gram - (crossed + crossed.T) + np.outer(shift, shift)).astype(np.float32)
    return replace(
        sample.centred,
        minimum=float(low.min()),
        maximum=float(high.max()),
        channel_absmax=np.maximum(np.abs(low), np.abs(high)),
        channel_minimum=low,
        channel_maximum=high,
        channel_mean=None if mean is None else mean - shift,
        gram=gram,
    )


def _matrix(layer: LinearLayer, tensors: Mapping[str, onnx.TensorProto]) -> NDArray[np.float64]:
    """Return a layer's weight as [out, in]."""
    weight: NDArray[Any] = np.asarray(to_array(tensors[layer.weight]), np.float64)
    return weight if layer.output_axis == 0 else weight.T


def _sum(added: dict[str, NDArray[np.float64]], name: str, values: NDArray[np.float64]) -> None:
    added[name] = added[name] + values if name in added else values
