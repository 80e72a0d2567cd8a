"""Rules about Q/DQ inside attention: a kernel is fused in int8 whole, or it falls into pieces."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx

from targets.quantization.attention import SOFTMAX_RANGE, AttentionBlock
from targets.quantization.integers import WEIGHT_LIMIT
from targets.quantization.qdq_nodes import DQ, QdqNodes
from targets.quantization.qdq_parameters import Finding

_SCALE = 1
_OPERANDS = ("query", "key", "softmax", "value")


def attention_findings(nodes: QdqNodes) -> Iterator[Finding]:
    """Yield what is wrong with each attention that must be int8, in execution order."""
    for block in nodes.attention:
        for name, (product, place, tensor) in zip(_OPERANDS, block.operands, strict=True):
            node = nodes.index.nodes.get(product)
            if node is None:
                yield Finding(node=product, rule="every attention is still there", why="it is gone")
            else:
                yield from _operand(nodes, block, node, place, tensor, name)


def _operand(
    nodes: QdqNodes, block: AttentionBlock, node: onnx.NodeProto, place: int, tensor: str, name: str
) -> Iterator[Finding]:
    maker = nodes.index.producers.get(node.input[place])
    quantizer = nodes.quantizer(maker) if maker is not None and maker.op_type == DQ else None
    if quantizer is None:
        yield Finding(
            node=node.name,
            rule="all four operands of an int8 attention are int8",
            why=f"the {name} of {block.path} is float, so no kernel takes the others",
        )
    elif quantizer.input[0] != tensor:
        yield Finding(
            node=node.name,
            rule="every product reads its own operands",
            why=f"its {name} is {tensor!r} in the float graph, not {quantizer.input[0]!r}",
        )
    elif name == "softmax":
        yield from _softmax(nodes, quantizer)


def _softmax(nodes: QdqNodes, quantizer: onnx.NodeProto) -> Iterator[Finding]:
    """Probabilities reach 1 for some text, whatever calibration saw."""
    scale = nodes.values(quantizer, _SCALE)
    if scale is None:
        return
    wanted = np.asarray(SOFTMAX_RANGE.high / WEIGHT_LIMIT).astype(scale.dtype)
    if scale != wanted:
        yield Finding(
            node=quantizer.name,
            rule=f"softmax has the scale 1/{WEIGHT_LIMIT}",
            why=f"it is {scale}, and probabilities end at 1",
        )
