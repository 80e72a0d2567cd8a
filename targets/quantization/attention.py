"""The two products inside each attention, and their form in int8.

An attention multiplies query with key, and softmax of that with value. Measured with TensorRT for
RTX 1.7: the fused kernel is int8 where all four operands have a Q/DQ pair, each symmetric with one
scale; with pairs at one of the two products only, attention falls into pieces.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from targets.contract import Calibrator
from targets.errors import CalibrationError, CompileError
from targets.quantization.calibrators import Range, choose_range
from targets.quantization.graph import GraphIndex, module_path
from targets.quantization.layers import EncoderLayers
from targets.quantization.statistics import TensorStatistics
from targets.quantization.table import CalibrationTable

SOFTMAX_RANGE = Range(low=-1.0, high=1.0)
"""Probabilities end at 1, whatever the texts: scale 1/127 without calibration. A signed type
without zero point leaves its negative half unused; TensorRT takes nothing else."""
FOLDED_MARGIN = 1.1
"""As `prepare.RANGE_MARGIN`: divided values come near their ends in every channel."""
_HEADS, _SIZE = 1, 3
_SCORE_STEPS = ("Add", "Mul", "Div", "Where", "Cast", "Identity", "Reshape")


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionBlock:
    """One attention: softmax(query · key) · value, all of [batch, heads, …].

    Args:
        path: path of the PyTorch module.
        scores: node that multiplies query and key.
        mix: node that multiplies probabilities and value.
        query: tensor [batch, heads, sequence, size], scaled if the graph scales it in front.
        key: tensor [batch, heads, size, sequence].
        softmax: the probabilities, [batch, heads, sequence, sequence].
        value: tensor [batch, heads, sequence, size].
        num_heads: 0 where shapes are not inferred.
        head_size: 0 likewise.
    """

    path: str
    scores: str
    mix: str
    query: str
    key: str
    softmax: str
    value: str
    num_heads: int = 0
    head_size: int = 0

    @property
    def operands(self) -> tuple[tuple[str, int, str], ...]:
        """Node, input and tensor of each of the four operands."""
        return (
            (self.scores, 0, self.query),
            (self.scores, 1, self.key),
            (self.mix, 0, self.softmax),
            (self.mix, 1, self.value),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionPlan:
    """How one attention becomes int8, without zero points.

    Args:
        block: from `read_attention` of the same graph.
        query: range of the query.
        key: range of the key.
        value: range of the value.
        value_absmax: largest absolute values of the value, shape [heads * size].
    """

    block: AttentionBlock
    query: Range
    key: Range
    value: Range
    value_absmax: NDArray[np.float32]

    @property
    def ranges(self) -> tuple[Range, ...]:
        """Ranges in the order of the block's operands."""
        return (self.query, self.key, SOFTMAX_RANGE, self.value)

    def divided(self, divisor: NDArray[np.float32]) -> AttentionPlan:
        """Return the plan of a graph whose value layer gives value / divisor, shape [channels].

        The histogram is that of the undivided tensor, so the range holds every channel's extreme.
        """
        absmax = np.asarray(self.value_absmax / divisor, np.float32)
        high = FOLDED_MARGIN * float(absmax.max())
        if high == 0.0:  # zero everywhere: any range is right
            return replace(self, value_absmax=absmax)
        return replace(self, value=Range(low=-high, high=high), value_absmax=absmax)


def read_attention(model: onnx.ModelProto, layers: EncoderLayers) -> tuple[AttentionBlock, ...]:
    """Pair the products of every attention, in execution order.

    Args:
        model: the float graph; its weights need not be in memory.
        layers: what `read_layers` found in it.

    Raises:
        CompileError: an attention is no pair of MatMul with Softmax between them.
    """
    index = GraphIndex(model.graph)
    shapes = _shapes(model)
    products = [index.nodes[name] for name in layers.attention]
    own = {node.name for node in products}
    blocks = []
    for node in products:
        maker = index.producers.get(node.input[0])
        if node.op_type == "MatMul" and maker is not None and maker.op_type == "Softmax":
            scores = _scores(maker.input[0], index, own)
            if scores is not None:
                blocks.append(_block(scores, node, shapes))
    paired = {name for block in blocks for name in (block.scores, block.mix)}
    for node in products:
        if node.name not in paired:
            raise CompileError(
                f"the attention at {node.name!r} cannot be quantized",
                why=f"{node.op_type} is no product right in front of, or behind, a Softmax",
                hint="leave attention in float",
            )
    return tuple(blocks)


def _scores(name: str, index: GraphIndex, products: set[str]) -> onnx.NodeProto | None:
    """Follow scale and mask from the softmax up to the product of query and key."""
    node = index.producers.get(name)
    if node is None or node.name in products:
        return node
    if node.op_type not in _SCORE_STEPS:
        return None
    found = (_scores(one, index, products) for one in node.input if one)
    return next((one for one in found if one is not None), None)


def _block(
    scores: onnx.NodeProto, mix: onnx.NodeProto, shapes: dict[str, list[int]]
) -> AttentionBlock:
    value = shapes.get(mix.input[1], [])
    whole = len(value) == 4
    return AttentionBlock(
        path=module_path(mix.name),
        scores=scores.name,
        mix=mix.name,
        query=scores.input[0],
        key=scores.input[1],
        softmax=mix.input[0],
        value=mix.input[1],
        num_heads=value[_HEADS] if whole else 0,
        head_size=value[_SIZE] if whole else 0,
    )


def _shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Infer the shape of every tensor; symbolic sizes are 0."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    return {
        one.name: [dim.dim_value for dim in one.type.tensor_type.shape.dim]
        for one in inferred.value_info
    }


def plan_attention(
    blocks: tuple[AttentionBlock, ...], table: CalibrationTable, calibrator: Calibrator
) -> tuple[AttentionPlan, ...]:
    """Choose the ranges of each attention's operands.

    Args:
        blocks: of the float graph.
        table: with the statistics of query, key and value, channels kept apart.
        calibrator: what chooses ranges, not "auto".

    Raises:
        CalibrationError: the table lacks a tensor.
    """
    return tuple(
        AttentionPlan(
            block=block,
            query=_range(table, block.query, calibrator),
            key=_range(table, block.key, calibrator),
            value=_range(table, block.value, calibrator),
            value_absmax=_channels(table, block.value),
        )
        for block in blocks
    )


def _range(table: CalibrationTable, name: str, calibrator: Calibrator) -> Range:
    return choose_range(_statistics(table, name), calibrator, symmetric=True)


def _channels(table: CalibrationTable, name: str) -> NDArray[np.float32]:
    absmax = _statistics(table, name).channel_absmax
    if absmax is None:
        raise CalibrationError(f"the table does not keep the channels of {name!r} apart")
    return absmax


def _statistics(table: CalibrationTable, name: str) -> TensorStatistics:
    found = table.tensors.get(name)
    if found is None:
        raise CalibrationError(
            f"the table has no statistics of {name!r}",
            why="an attention reads it, and attention was not calibrated",
            hint="calibrate with attention",
        )
    return found
