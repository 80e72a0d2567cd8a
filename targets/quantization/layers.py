"""Finds an encoder's layers in an ONNX graph by structure, whatever the model family.

Linear layers are known by their constant weights, attention by products of two activations,
the end of a feed-forward block by a linear layer that narrows and feeds a residual addition.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

import onnx

from targets.errors import CompileError
from targets.quantization.graph import (
    FLOAT_TYPES,
    GraphIndex,
    attribute,
    module_path,
)
from targets.quantization.matrices import Weight, read_bias, read_weight

HIDDEN_STATE = "last_hidden_state"
FFN_DOWN = "ffn.down"
"""The pattern that names the linear layer at the end of each feed-forward block."""

_PASS_THROUGH = frozenset({"Cast", "Reshape", "Squeeze", "Unsqueeze", "Identity"})
"""Operations between a linear layer and what it feeds."""
_FUSED_ATTENTION = frozenset({"Attention", "MultiHeadAttention"})


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearLayer:
    """A product of activations with a constant matrix, and its bias.

    Args:
        path: path of the PyTorch module, "encoder.layer.0.output.dense".
        node: name of the MatMul or Gemm.
        activation: tensor that it reads.
        weight: stored tensor with the matrix.
        output_axis: axis of the output channels in `weight` as it is stored.
        transposed: `weight` is stored [out, in] and turned by Gemm or a Transpose.
        bias: stored tensor that is added at once, or Gemm's C; None: there is none.
        output: tensor after the bias, or the product where there is none.
        ends_ffn: it is the last linear layer of a feed-forward block.
    """

    path: str
    node: str
    activation: str
    weight: str
    output_axis: int
    transposed: bool
    bias: str | None
    output: str
    ends_ffn: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingTable:
    """A lookup of rows in a stored float matrix.

    Args:
        path: path of the PyTorch module.
        node: name of the Gather.
        weight: stored tensor [num_rows, dim].
        num_rows: size of the vocabulary.
    """

    path: str
    node: str
    weight: str
    num_rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderLayers:
    """The layers that recipes speak of.

    Args:
        linears: linear layers in front of `last_hidden_state`, in execution order.
        attention: nodes there that multiply two activations, or fused attentions.
        embeddings: lookups there.
        head: all nodes that depend on `last_hidden_state`: pooling, dense, normalization.
    """

    linears: tuple[LinearLayer, ...]
    attention: tuple[str, ...]
    embeddings: tuple[EmbeddingTable, ...]
    head: frozenset[str]


def read_layers(model: onnx.ModelProto) -> EncoderLayers:
    """Sort the nodes of a float graph.

    Args:
        model: nodes have unique names and are in topological order; constants are folded.

    Raises:
        CompileError: it has no output `last_hidden_state`, or nodes without unique names.
    """
    index = GraphIndex(model.graph)
    hidden = hidden_state(index)
    walk = _Walk(index, index.ancestors(hidden))
    walk.run(model.graph.node)
    return EncoderLayers(
        linears=tuple(walk.linears),
        attention=tuple(walk.attention),
        embeddings=tuple(walk.embeddings),
        head=index.descendants(hidden),
    )


def hidden_state(index: GraphIndex) -> str:
    """Return the tensor that is `last_hidden_state`, beneath any renaming.

    Raises:
        CompileError: there is no such output.
    """
    if HIDDEN_STATE not in index.outputs:
        raise CompileError(
            f"the graph has no output {HIDDEN_STATE!r}",
            why="pooling and normalization start there and must stay in float",
            hint="export the encoder with both outputs",
        )
    name = HIDDEN_STATE
    while (node := index.producers.get(name)) is not None and node.op_type == "Identity":
        name = node.input[0]
    return name


def match(pattern: str, layers: EncoderLayers) -> tuple[LinearLayer, ...]:
    """Return the linear layers that a pattern names.

    Args:
        pattern: a glob on module paths, or "ffn.down".
        layers: the graph's layers.

    Raises:
        CompileError: if nothing matches; names the pattern and the nearest layers.
    """
    if pattern == FFN_DOWN:
        found = tuple(layer for layer in layers.linears if layer.ends_ffn)
    else:
        found = tuple(one for one in layers.linears if fnmatchcase(one.path, pattern))
    if not found:
        raise _nothing_matches(pattern, layers)
    return found


def _nothing_matches(pattern: str, layers: EncoderLayers) -> CompileError:
    paths = sorted({layer.path for layer in layers.linears})
    nearest = difflib.get_close_matches(pattern, paths, n=3, cutoff=0.0)
    return CompileError(
        f"no layer matches {pattern!r}",
        why=f"the nearest of {len(paths)} linear layers: {', '.join(nearest) or 'none'}",
        hint=f"patterns are globs on module paths, or {FFN_DOWN!r} for what structure tells",
    )


class _Walk:
    """One pass in execution order; what a tensor comes from is known before it is read."""

    def __init__(self, index: GraphIndex, front: frozenset[str]) -> None:
        self.linears: list[LinearLayer] = []
        self.attention: list[str] = []
        self.embeddings: list[EmbeddingTable] = []
        self._index = index
        self._front = front
        self._after_linear: set[str] = set()
        self._after_attention: set[str] = set()  # with no linear layer in between

    def run(self, nodes: Iterable[onnx.NodeProto]) -> None:
        """Sort nodes that come in topological order."""
        for node in nodes:
            if node.name in self._front:
                self._visit(node)

    def _visit(self, node: onnx.NodeProto) -> None:
        weight = read_weight(node, self._index)
        attention = weight is None and self._is_attention(node)
        if weight is not None:
            self.linears.append(self._linear(node, weight))
        elif attention:
            self.attention.append(node.name)
        elif (table := _embedding(node, self._index)) is not None:
            self.embeddings.append(table)
        if weight is not None or self._reads(node, self._after_linear):
            self._after_linear.update(node.output)
        if attention or (weight is None and self._reads(node, self._after_attention)):
            self._after_attention.update(node.output)

    def _reads(self, node: onnx.NodeProto, tensors: set[str]) -> bool:
        return any(name in tensors for name in node.input)

    def _is_attention(self, node: onnx.NodeProto) -> bool:
        """Say whether a node multiplies two activations, or is a whole fused attention.

        Activations come out of a linear layer; rotary embeddings multiply positions, which do
        not, and would be ruined in int8.
        """
        if node.op_type in _FUSED_ATTENTION:
            return True
        return node.op_type == "MatMul" and all(one in self._after_linear for one in node.input)

    def _linear(self, node: onnx.NodeProto, weight: Weight) -> LinearLayer:
        bias, output = read_bias(node, weight, self._index)
        return LinearLayer(
            path=module_path(node.name),
            node=node.name,
            activation=node.input[0],
            weight=weight.name,
            output_axis=0 if weight.transposed else 1,
            transposed=weight.transposed,
            bias=bias,
            output=output,
            ends_ffn=self._ends_ffn(node, weight),
        )

    def _ends_ffn(self, node: onnx.NodeProto, weight: Weight) -> bool:
        """Say whether a linear layer is the last one of a feed-forward block.

        It narrows, its result is added to a residual, and it reads another linear layer with no
        attention in between: an attention's output projection narrows too in some families, a
        projection of the embeddings in others.
        """
        activation = node.input[0]
        return (
            weight.fan_in > weight.fan_out
            and activation in self._after_linear
            and activation not in self._after_attention
            and _feeds_residual(node.output[0], self._index)
        )


# ------------------------------------------------------------------------ single nodes


def _embedding(node: onnx.NodeProto, index: GraphIndex) -> EmbeddingTable | None:
    if node.op_type != "Gather" or attribute(node, "axis", 0) != 0:
        return None
    table = index.tensors.get(node.input[0])
    if table is None or table.data_type not in FLOAT_TYPES or len(table.dims) != 2:
        return None
    return EmbeddingTable(
        path=module_path(node.name),
        node=node.name,
        weight=node.input[0],
        num_rows=table.dims[0],
    )


def _feeds_residual(name: str, index: GraphIndex) -> bool:
    """Follow a bias, a layer scale or a change of shape to an addition of two activations."""
    for node in index.readers.get(name, []):
        takes_constant = any(index.is_constant(one) for one in node.input)
        if node.op_type == "Add" and not takes_constant:
            return True
        scales = node.op_type in ("Add", "Mul") and takes_constant
        leads_on = scales or node.op_type in _PASS_THROUGH
        if leads_on and _feeds_residual(node.output[0], index):
            return True
    return False
