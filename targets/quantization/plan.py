"""What becomes int8 in a graph, and the integers that a plan asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from targets.contract import IntegerScheme
from targets.errors import CompileError
from targets.quantization.attention import AttentionPlan
from targets.quantization.calibrators import Range
from targets.quantization.integers import largest_weight_integer, round_weight, weight_scale
from targets.quantization.layers import LinearLayer


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPlan:
    """How one linear layer becomes int8.

    Args:
        layer: from `read_layers` of the same graph.
        activation: what its input is quantized in, behind the divisor if there is one.
        divisor: shape [in]; the input is divided by it in front of the pair, and weight_integers
            belong to the weight that was multiplied by it. None: 1.
        integers: types of activation and weight.
        symmetric: the activation has no zero point.
        weight: values instead of the graph's own, in the shape and order that it is stored in.
        weight_scale: shape [out]; None: see `integers.weight_scale`.
        weight_integers: already rounded, in the stored shape; None: rounded to nearest.
        bias: shape [out], instead of the layer's own, or where it has none.
        reduce_range: weights keep seven bits.
    """

    layer: LinearLayer
    activation: Range
    integers: IntegerScheme
    symmetric: bool
    divisor: NDArray[np.float32] | None = None
    weight: NDArray[np.float32] | None = None
    weight_scale: NDArray[np.float32] | None = None
    weight_integers: NDArray[np.int8] | None = None
    bias: NDArray[np.float32] | None = None
    reduce_range: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class QdqPlan:
    """What becomes int8 in a graph.

    Args:
        layers: each linear layer at most once; the others stay in float.
        embeddings: how tables of at least `embeddings_qdq.LARGE_TABLE` rows are stored.
        attention: each attention at most once; the others stay in float.
    """

    layers: tuple[LayerPlan, ...]
    embeddings: Literal["float32", "float16", "int8"] = "float32"
    attention: tuple[AttentionPlan, ...] = ()


def rounded_weight(
    plan: LayerPlan, stored: NDArray[np.floating]
) -> tuple[NDArray[np.int8], NDArray[np.floating]]:
    """Return a layer's integers and scales as a plan wants them.

    Args:
        plan: of the layer.
        stored: the graph's own weight.

    Returns:
        Integers of the stored shape, int8; scales, shape [out], of the stored float type.

    Raises:
        CompileError: something in the plan has a wrong shape, or values that are no weights.
    """
    axis = plan.layer.output_axis
    weight = np.asarray(stored if plan.weight is None else plan.weight)
    require_shape(plan, "weight", weight, stored.shape)
    if not np.isfinite(weight).all():
        raise CompileError(f"{plan.layer.path}: the weight has values that are not finite")
    weight = weight.astype(stored.dtype)
    scale = (
        weight_scale(weight, axis, reduce_range=plan.reduce_range)
        if plan.weight_scale is None
        else plan.weight_scale.astype(stored.dtype)
    )
    require_shape(plan, "weight_scale", scale, (stored.shape[axis],))
    if not np.all(np.isfinite(scale) & (scale > 0)):
        raise CompileError(
            f"{plan.layer.path}: weight scales must be positive and finite",
            why=f"they lie between {scale.min()} and {scale.max()} in {scale.dtype.name}",
        )
    if plan.weight_integers is None:
        return round_weight(weight, scale, axis, reduce_range=plan.reduce_range), scale
    require_shape(plan, "weight_integers", plan.weight_integers, stored.shape)
    _require_bits(plan, plan.weight_integers)
    return plan.weight_integers, scale


def _require_bits(plan: LayerPlan, integers: NDArray[np.int8]) -> None:
    limit = largest_weight_integer(plan.reduce_range)
    largest = int(np.abs(integers.astype(np.int16)).max(initial=0))
    if integers.dtype != np.int8 or largest > limit:
        raise CompileError(
            f"{plan.layer.path}: weight_integers are {integers.dtype.name} up to {largest}",
            why=f"the plan allows int8 up to {limit}",
            hint="round with the limit of the plan's reduce_range",
        )


def require_shape(
    plan: LayerPlan, field: str, values: NDArray[np.generic], shape: tuple[int, ...]
) -> None:
    """Refuse an array of a plan that does not fit the graph.

    Raises:
        CompileError: names the layer, the field and both shapes.
    """
    if values.shape != shape:
        raise CompileError(
            f"{plan.layer.path}: {field} has shape {values.shape}, the graph needs {shape}",
            hint="keep the order in which the graph stores the weight; see LinearLayer.output_axis",
        )
