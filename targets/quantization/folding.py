"""Divisors of smoothing folded into the operation in front, so that no product is added.

A layer that reads x / d needs no division where something in front can give x / d itself and
nobody else reads x: attention's output is linear in its values, so the value layer's weights and
bias are divided instead, channel by channel (its own integers stay, their scales change); a
LayerNorm that only linear layers read has a weight and a bias of its own. Where the residual reads
the LayerNorm's output too (BERT), or an activation function lies in front, the product stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from targets.quantization.graph import GraphIndex, attribute, to_floats
from targets.quantization.layers import LinearLayer, read_layers
from targets.quantization.plan import LayerPlan, QdqPlan

_HEADS_FIRST = [0, 2, 1, 3]
"""[batch, sequence, heads, size] to [batch, heads, sequence, size], and back."""

Divisor = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fold:
    """A divisor that goes into a layer (`value`) or into stored vectors (`vectors`).

    `mix` is the product of probabilities and values behind the layer.
    """

    node: str
    divisor: Divisor
    value: LinearLayer | None = None
    mix: str = ""
    vectors: tuple[str, ...] = ()


def fold_divisors(
    model: onnx.ModelProto, plan: QdqPlan
) -> tuple[onnx.ModelProto, QdqPlan, tuple[str, ...]]:
    """Fold the divisors that can be folded.

    Args:
        model: the float graph that the plan was made for; it is not changed.
        plan: any.

    Returns:
        The graph with stored tensors divided; the plan without these divisors; the paths of
        the layers whose division is gone.
    """
    index = GraphIndex(model.graph)
    linears = {layer.output: layer for layer in read_layers(model).linears}
    folds = [fold for one in plan.layers if (fold := _fold_of(one, plan, index, linears))]
    if not folds:
        return model, plan, ()
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    tensors = {one.name: one for one in changed.graph.initializer}
    layers = {one.layer.node: one for one in plan.layers}
    attention = {one.block.mix: one for one in plan.attention}
    done: set[str] = set()
    for fold in folds:
        layers[fold.node] = replace(layers[fold.node], divisor=None)
        for name in fold.vectors:
            if name not in done:  # several layers read one LayerNorm
                _divide(tensors[name], fold.divisor, axis=0)
                done.add(name)
        if fold.value is not None:
            _divide_layer(fold.value, fold.divisor, layers, tensors)
        if fold.mix in attention:
            attention[fold.mix] = attention[fold.mix].divided(fold.divisor)
    paths = tuple(layers[fold.node].layer.path for fold in folds)
    folded = replace(plan, layers=tuple(layers.values()), attention=tuple(attention.values()))
    return changed, folded, paths


def _fold_of(
    one: LayerPlan, plan: QdqPlan, index: GraphIndex, linears: dict[str, LinearLayer]
) -> _Fold | None:
    if one.divisor is None or not np.all(np.isfinite(one.divisor) & (one.divisor > 0)):
        return None
    mix, value = _value_layer(one.layer, index, linears)
    if value is not None and len(one.divisor) == _fan_out(value, index):
        return _Fold(node=one.layer.node, divisor=one.divisor, value=value, mix=mix)
    vectors = _norm_vectors(one, plan.layers, index)
    return _Fold(node=one.layer.node, divisor=one.divisor, vectors=vectors) if vectors else None


def _value_layer(
    layer: LinearLayer, index: GraphIndex, linears: dict[str, LinearLayer]
) -> tuple[str, LinearLayer | None]:
    """Return the layer whose output channels arrive one by one at this layer's input.

    With it, the node that multiplies them by the attention's probabilities.
    """
    product = _up(layer.activation, index, ("Reshape", "Transpose", "MatMul"))
    if product is None:
        return "", None
    above = _up(product.input[1], index, ("Transpose", "Reshape"))
    value = linears.get(above.input[0]) if above is not None else None
    if value is None or value.transposed or not _read_once(value.output, index):
        return "", None
    own = [value.weight, *([] if value.bias is None else [value.bias])]
    return product.name, value if all(_read_once(name, index) for name in own) else None


def _up(name: str, index: GraphIndex, kinds: Sequence[str]) -> onnx.NodeProto | None:
    """Follow the makers of a tensor, each read once; None where another kind comes."""
    node: onnx.NodeProto | None = None
    for kind in kinds:
        node = index.producers.get(name)
        if node is None or node.op_type != kind or not _read_once(name, index):
            return None
        if kind == "Transpose" and attribute(node, "perm", []) != _HEADS_FIRST:
            return None
        name = node.input[0]
    return node


def _norm_vectors(one: LayerPlan, plans: Sequence[LayerPlan], index: GraphIndex) -> tuple[str, ...]:
    """Return weight and bias of a LayerNorm that only layers with this divisor read."""
    name = one.layer.activation
    node = index.producers.get(name)
    if node is None or node.op_type != "LayerNormalization" or name in index.outputs:
        return ()
    if attribute(node, "axis", -1) != -1 or one.divisor is None:
        return ()
    alike = {
        other.layer.node
        for other in plans
        if other.divisor is not None and np.array_equal(other.divisor, one.divisor)
    }
    if any(reader.name not in alike for reader in index.readers[name]):
        return ()
    vectors = tuple(node.input[1:])
    stored = all(v in index.tensors and _read_once(v, index) for v in vectors)
    whole = all(tuple(index.tensors[v].dims) == one.divisor.shape for v in vectors if stored)
    return vectors if stored and whole else ()


def _divide_layer(
    value: LinearLayer,
    divisor: Divisor,
    layers: dict[str, LayerPlan],
    tensors: dict[str, onnx.TensorProto],
) -> None:
    """Let a layer give its output divided, as it is stored and as it is planned."""
    _divide(tensors[value.weight], divisor, axis=value.output_axis)
    if value.bias is not None:
        _divide(tensors[value.bias], divisor, axis=-1)
    own = layers.get(value.node)
    if own is None:
        return
    # Integers stay what they are: both the weight and its scale are divided.
    layers[value.node] = replace(
        own,
        weight=None if own.weight is None else _divided(own.weight, divisor, value.output_axis),
        weight_scale=None if own.weight_scale is None else own.weight_scale / divisor,
        bias=None if own.bias is None else own.bias / divisor,
    )


def _divide(tensor: onnx.TensorProto, divisor: Divisor, axis: int) -> None:
    values = to_floats(tensor)
    divided = _divided(values, divisor, axis).astype(values.dtype)
    tensor.CopyFrom(numpy_helper.from_array(divided, tensor.name))


def _divided(values: NDArray[Any], divisor: Divisor, axis: int) -> NDArray[Any]:
    shape = [1] * values.ndim
    shape[axis] = len(divisor)
    result: NDArray[Any] = values / divisor.reshape(shape)
    return result


def _fan_out(layer: LinearLayer, index: GraphIndex) -> int:
    return int(index.tensors[layer.weight].dims[layer.output_axis])


def _read_once(name: str, index: GraphIndex) -> bool:
    return len(index.readers.get(name, [])) == 1 and name not in index.outputs
