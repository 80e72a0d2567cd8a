"""Proves that a Q/DQ graph is what was meant: parsers accept silently what is wrong.

TensorRT's parser takes scales along the wrong axis and per-channel activations without a word;
Q/DQ on products or softmax breaks its fused attention, a second pair on one activation its merging
of query, key and value. Every rule is checked on the graph as it stands, whoever wrote it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import onnx

from targets.errors import CompileError
from targets.quantization.attention import AttentionBlock
from targets.quantization.attention_rules import attention_findings
from targets.quantization.graph import opset_version
from targets.quantization.layers import EncoderLayers, hidden_state
from targets.quantization.qdq import MIN_OPSET
from targets.quantization.qdq_nodes import DQ, Q, QdqNodes
from targets.quantization.qdq_parameters import Finding, parameter_findings

_FOREIGN = frozenset(
    {
        "DynamicQuantizeLinear",
        "DynamicQuantizeMatMul",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "QLinearMatMul",
        "QGemm",
        "QAttention",
    }
)
"""Operators that do a quantized layer's work without Q/DQ; TensorRT rejects them."""
_PRODUCTS = ("MatMul", "Gemm")


def validate_qdq(
    model: onnx.ModelProto,
    layers: EncoderLayers,
    expected: Sequence[str],
    *,
    symmetric: bool,
    attention: Sequence[AttentionBlock] = (),
) -> None:
    """Check a quantized graph against every rule.

    Args:
        model: the quantized graph, its stored tensors in memory.
        layers: from `read_layers` of the float graph that it was made from.
        expected: paths of the linear layers that must be int8; all others must not.
        symmetric: no zero points, no unsigned integers.
        attention: whose products must be int8; all others must not.

    Raises:
        CompileError: names the first node that breaks a rule, and the rule.
    """
    _raise_first(_opset(model))
    _raise_first(_order(model))
    nodes = QdqNodes(model, layers, expected, symmetric=symmetric, attention=attention)
    rules = (_operators, _head, _placement, _shared, parameter_findings, _coverage)
    for findings in (*rules, attention_findings):
        _raise_first(findings(nodes))


def _raise_first(findings: Iterator[Finding]) -> None:
    for one in findings:
        raise CompileError(
            f"{one.node!r} breaks the rule: {one.rule}",
            why=one.why,
            hint="write the graph with insert_qdq; do not change it afterwards",
        )


# ------------------------------------------------------------------------- whole graph


def _opset(model: onnx.ModelProto) -> Iterator[Finding]:
    version = opset_version(model)
    if version < MIN_OPSET:
        yield Finding(
            node=model.graph.name, rule=f"opset {MIN_OPSET} or later", why=f"it is {version}"
        )


def _order(model: onnx.ModelProto) -> Iterator[Finding]:
    graph = model.graph
    known = {value.name for value in graph.input} | {one.name for one in graph.initializer}
    for node in graph.node:
        for name in node.input:
            if name and name not in known:
                why = f"it reads {name!r} before any node has made it"
                yield Finding(node=node.name, rule="nodes are in topological order", why=why)
        known.update(node.output)


def _operators(nodes: QdqNodes) -> Iterator[Finding]:
    for node in nodes.model.graph.node:
        if node.op_type in _FOREIGN:
            yield Finding(
                node=node.name,
                rule="quantized layers are written with Q/DQ",
                why=f"it is a {node.op_type}",
            )


def _head(nodes: QdqNodes) -> Iterator[Finding]:
    head = nodes.index.descendants(hidden_state(nodes.index))
    for node in nodes.all():
        readers = {reader.name for reader, _ in nodes.readers(node.output[0])}
        if node.name in head or (nodes.is_weight(node) and readers & head):
            yield Finding(
                node=node.name,
                rule="nothing behind last_hidden_state is quantized",
                why="pooling and normalization lose what int8 layers keep",
            )


# --------------------------------------------------------------------------- placement


def _placement(nodes: QdqNodes) -> Iterator[Finding]:
    """Find Q/DQ anywhere but in front of linear layers and of the products of attention."""
    for node in nodes.all():
        if node.op_type == Q:
            yield from _misplaced_quantizer(nodes, node)
        elif not nodes.is_weight(node) and nodes.quantizer(node) is None:
            why = f"it reads {node.input[0]!r}, which no QuantizeLinear made and nothing stores"
            yield Finding(node=node.name, rule="Q and DQ come in pairs", why=why)
        else:
            yield from _misplaced_readers(nodes, node)


def _misplaced_quantizer(nodes: QdqNodes, node: onnx.NodeProto) -> Iterator[Finding]:
    if nodes.index.is_constant(node.input[0]):
        why = f"it rounds the stored {node.input[0]!r} at run time"
        yield Finding(node=node.name, rule="weights are stored as integers", why=why)
    readers = nodes.index.readers.get(node.output[0], [])
    strangers = [reader.name for reader in readers if reader.op_type != DQ]
    if strangers or not readers or node.output[0] in nodes.index.outputs:
        why = f"{strangers or 'no node or an output'} reads its integers"
        yield Finding(node=node.name, rule="Q and DQ come in pairs", why=why)


def _misplaced_readers(nodes: QdqNodes, node: onnx.NodeProto) -> Iterator[Finding]:
    wanted = 1 if nodes.is_weight(node) else 0
    for reader, place in nodes.readers(node.output[0]):
        if reader.name in nodes.products and wanted == 0:
            continue
        if reader.name not in nodes.by_node or place != wanted:
            yield Finding(
                node=node.name,
                rule="Q/DQ only on activations and weights of linear layers",
                why=f"{_describe(nodes, node)} is read by {reader.name!r} ({reader.op_type})",
            )
    if not nodes.readers(node.output[0]):
        why = "nothing reads it, or it is an output of the graph"
        yield Finding(node=node.name, rule="Q and DQ come in pairs", why=why)


def _describe(nodes: QdqNodes, node: onnx.NodeProto) -> str:
    """Say what a DequantizeLinear stands for, in the words of the rules."""
    quantizer = nodes.quantizer(node)
    if quantizer is None:
        return f"the stored {node.input[0]!r}"
    name = quantizer.input[0]
    maker = nodes.index.producers.get(name)
    if maker is None:
        return f"the input {name!r}"
    if maker.op_type in _PRODUCTS:
        return f"the output of the product {maker.name!r}"
    if any(layer.output == name for layer in nodes.layers.linears):
        return f"the tensor after the bias {maker.name!r}"
    if maker.op_type == "Add":
        return f"the residual {maker.name!r}"
    return f"the output of {maker.name!r} ({maker.op_type})"


def _shared(nodes: QdqNodes) -> Iterator[Finding]:
    """Find second pairs that say the same of one tensor."""
    rule = "one shared pair for each activation"
    earlier: dict[tuple[str, str], list[onnx.NodeProto]] = defaultdict(list)
    for node in nodes.all():
        others = earlier[node.op_type, node.input[0]]
        for other in others:
            if node.op_type == DQ or _same_parameters(nodes, other, node):
                why = f"{other.name!r} reads {node.input[0]!r} as well"
                yield Finding(node=node.name, rule=rule, why=why)
        others.append(node)


def _same_parameters(nodes: QdqNodes, first: onnx.NodeProto, second: onnx.NodeProto) -> bool:
    pairs = ((nodes.values(first, place), nodes.values(second, place)) for place in (1, 2))
    return all(
        one is not None and other is not None and one.tobytes() == other.tobytes()
        for one, other in pairs
    )


# ---------------------------------------------------------------------------- coverage


def _coverage(nodes: QdqNodes) -> Iterator[Finding]:
    """Find layers that should be int8 and are not, or are and should not be."""
    for layer in nodes.layers.linears:
        node = nodes.index.nodes.get(layer.node)
        if node is None:
            yield Finding(node=layer.node, rule="every layer is still there", why="it is gone")
            continue
        activation, weight = (nodes.dequantizer(node.input[place]) for place in (0, 1))
        if layer.node not in nodes.expected:
            if activation is not None or weight is not None:
                yield Finding(
                    node=layer.node,
                    rule="only the expected layers are int8",
                    why=f"{layer.path} was planned to stay in float",
                )
        elif activation is None or weight is None:
            missing = "activation" if activation is None else "weight"
            yield Finding(
                node=layer.node,
                rule="every expected layer is int8",
                why=f"the {missing} of {layer.path} is float",
            )
        elif (quantizer := nodes.quantizer(activation)) is None or (
            layer.activation not in nodes.sources(quantizer)
        ):
            yield Finding(
                node=layer.node,
                rule="every layer reads its own activation",
                why=f"it is {layer.activation!r} in the float graph",
            )
