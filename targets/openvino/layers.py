"""Finds an encoder's layers in an OpenVINO graph by structure, whatever the model family.

Linear layers are known by their constant weights, attention by products of two activations,
the end of a feed-forward block by a linear layer that narrows and feeds a residual addition.
OpenVINO's Python API is untyped, hence `Any`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from targets.contract import LayerOverride
from targets.errors import CompileError
from targets.openvino.recipes import ATTENTION_PRODUCTS, FFN_DOWN

HIDDEN_STATE = "last_hidden_state"

_CONSTANT_CHAIN = frozenset(
    {"Convert", "Transpose", "Reshape", "Multiply", "Subtract", "Unsqueeze", "Squeeze"}
)
"""Operations that still give a constant when all their inputs are constants."""
_PASS_THROUGH = frozenset({"Convert", "Reshape", "Squeeze", "Unsqueeze"})
"""Operations between a linear layer and what it feeds."""
_FUSED_ATTENTION = "ScaledDotProductAttention"


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """A linear layer: a product of activations with a constant matrix.

    Args:
        node: name of the MatMul in the graph.
        path: path of the PyTorch module it comes from, "encoder.layer.0.output.dense".
        ends_ffn: it is the last linear layer of a feed-forward block.
    """

    node: str
    path: str
    ends_ffn: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderLayers:
    """The layers that recipes speak of; names are those of graph nodes.

    Args:
        linears: linear layers in front of `last_hidden_state`, in execution order.
        attention: products of two activations (or fused attentions) there.
        arithmetic: products with a constant that is no weight matrix (rotary positions).
        head: everything behind `last_hidden_state`: pooling, dense heads, normalization.
    """

    linears: tuple[Linear, ...]
    attention: tuple[str, ...]
    arithmetic: tuple[str, ...]
    head: tuple[str, ...]


def find_layers(model: Any) -> EncoderLayers:  # noqa: ANN401
    """Sort the nodes of an FP32 graph whose names are unique.

    Args:
        model: an `openvino.Model` with an output named `last_hidden_state`.

    Raises:
        CompileError: if that output is missing.
    """
    head = frozenset(_head(model))
    linears: list[Linear] = []
    attention: list[str] = []
    arithmetic: list[str] = []
    for node in model.get_ordered_ops():
        name = str(node.get_friendly_name())
        if name in head:
            continue
        if is_linear(node):
            linears.append(Linear(node=name, path=module_path(name), ends_ffn=_ends_ffn(node)))
        elif is_attention_product(node):
            attention.append(name)
        elif node.get_type_name() == "MatMul":
            arithmetic.append(name)
    return EncoderLayers(
        linears=tuple(linears),
        attention=tuple(attention),
        arithmetic=tuple(arithmetic),
        head=tuple(sorted(head)),
    )


def nodes_matching(override: LayerOverride, layers: EncoderLayers, recipe: str) -> tuple[str, ...]:
    """Return the nodes that an override names.

    Args:
        override: its pattern is a glob on module paths, or one of the two special patterns.
        layers: the graph's layers.
        recipe: name of the recipe, for the message.

    Raises:
        CompileError: if nothing matches; names the pattern and the nearest layers.
    """
    if override.pattern == ATTENTION_PRODUCTS:
        found = layers.attention
    elif override.pattern == FFN_DOWN:
        found = tuple(layer.node for layer in layers.linears if layer.ends_ffn)
    else:
        matching = (one for one in layers.linears if fnmatchcase(one.path, override.pattern))
        found = tuple(layer.node for layer in matching)
    if not found:
        raise _nothing_matches(override.pattern, layers, recipe)
    return found


def _nothing_matches(pattern: str, layers: EncoderLayers, recipe: str) -> CompileError:
    paths = sorted({layer.path for layer in layers.linears})
    nearest = difflib.get_close_matches(pattern, paths, n=3, cutoff=0.0)
    return CompileError(
        f"recipe {recipe!r}: no layer matches {pattern!r}",
        why=f"the nearest of {len(paths)} linear layers: {', '.join(nearest) or 'none'}",
        hint="patterns are globs on module paths, "
        f"or {ATTENTION_PRODUCTS!r} and {FFN_DOWN!r} for what structure tells",
    )


# ------------------------------------------------------------------------ single nodes


def is_linear(node: Any) -> bool:  # noqa: ANN401
    """Say whether a node multiplies activations with a constant matrix [in, out]."""
    if node.get_type_name() != "MatMul":
        return False
    weight = node.input_value(1)
    return (
        _is_constant(weight.get_node())
        and not _is_constant(node.input_value(0).get_node())
        and weight.get_partial_shape().rank.get_length() == 2
    )


def is_attention_product(node: Any) -> bool:  # noqa: ANN401
    """Say whether a node multiplies two activations, or is a whole fused attention.

    Activations come out of a linear layer; rotary embeddings multiply positions, which do
    not, and would be ruined in int8.
    """
    if node.get_type_name() == _FUSED_ATTENTION:
        return True
    return node.get_type_name() == "MatMul" and all(
        _comes_from(value.get_node(), is_linear) for value in node.input_values()
    )


def module_path(node_name: str) -> str:
    """Return the path of the PyTorch module in a node's name; a name without one is itself.

    "encoder.layer.0.output.dense/MatMul" and, as torch's older exporter spells it,
    "/encoder/layer.0/output/dense/MatMul" both give "encoder.layer.0.output.dense".
    """
    path, slash, _ = node_name.rpartition("/")
    return path.strip("/").replace("/", ".") if slash else node_name


def _is_constant(node: Any) -> bool:  # noqa: ANN401
    kind = node.get_type_name()
    if kind == "Constant":
        return True
    return kind in _CONSTANT_CHAIN and all(
        _is_constant(value.get_node()) for value in node.input_values()
    )


def _consumers(node: Any) -> list[Any]:  # noqa: ANN401
    return [port.get_node() for out in node.outputs() for port in out.get_target_inputs()]


# --------------------------------------------------------------------- where nodes lie


def _head(model: Any) -> Iterator[str]:  # noqa: ANN401
    """Yield the names of all nodes that depend on `last_hidden_state`."""
    outputs = [out for out in model.outputs if HIDDEN_STATE in out.get_names()]
    if not outputs:
        raise CompileError(
            f"the graph has no output {HIDDEN_STATE!r}",
            why="pooling and normalization start there and must stay in float",
            hint="export the encoder with both outputs",
        )
    source = outputs[0].get_node().input_value(0)
    waiting = [port.get_node() for port in source.get_target_inputs()]
    seen: set[str] = set()
    while waiting:
        node = waiting.pop()
        name = node.get_friendly_name()
        if name in seen or node.get_type_name() == "Result":
            continue
        seen.add(name)
        yield name
        waiting.extend(_consumers(node))


def _ends_ffn(node: Any) -> bool:  # noqa: ANN401
    """Say whether a linear layer is the last one of a feed-forward block.

    It narrows, its result is added to a residual, and it reads another linear layer with no
    attention in between: an attention's output projection narrows too in some families, a
    projection of the embeddings in others.
    """
    above = node.input_value(0).get_node()
    return (
        _narrows(node)
        and _feeds_residual(node)
        and _comes_from(above, is_linear)
        and not _comes_from(above, is_attention_product, stop=is_linear)
    )


def _narrows(node: Any) -> bool:  # noqa: ANN401
    rows, columns = node.input_value(1).get_partial_shape().to_shape()
    transposed = bool(node.get_attributes().get("transpose_b"))
    fan_in, fan_out = (columns, rows) if transposed else (rows, columns)
    return int(fan_in) > int(fan_out)


def _feeds_residual(node: Any) -> bool:  # noqa: ANN401
    return any(_adds_two_activations(one) or _leads_on(one) for one in _consumers(node))


def _leads_on(node: Any) -> bool:  # noqa: ANN401
    """Follow a bias, a layer scale or a change of shape to the residual addition."""
    kind = node.get_type_name()
    follows = kind in _PASS_THROUGH or (kind in ("Add", "Multiply") and _takes_constant(node))
    return follows and _feeds_residual(node)


def _adds_two_activations(node: Any) -> bool:  # noqa: ANN401
    return node.get_type_name() == "Add" and not _takes_constant(node)


def _takes_constant(node: Any) -> bool:  # noqa: ANN401
    return any(_is_constant(value.get_node()) for value in node.input_values())


def _comes_from(
    node: Any,  # noqa: ANN401
    wanted: Callable[[Any], bool],
    stop: Callable[[Any], bool] = lambda _: False,
) -> bool:
    """Search a node and all above it; do not look beyond nodes that `stop` names."""
    waiting = [node]
    seen: set[str] = set()
    while waiting:
        above = waiting.pop()
        name = above.get_friendly_name()
        if name in seen or stop(above):
            continue
        if wanted(above):
            return True
        seen.add(name)
        waiting.extend(value.get_node() for value in above.input_values())
    return False


def nodes_kept_float(layers: EncoderLayers, matched: Sequence[str]) -> list[str]:
    """Return, without repeats, all nodes that must not be quantized."""
    return list(dict.fromkeys((*matched, *layers.arithmetic, *layers.head)))
