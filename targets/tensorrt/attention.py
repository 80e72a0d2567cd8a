"""For which graphs TensorRT has a fused attention that takes int8.

Measured with TensorRT for RTX 1.7.1.116, capability 8.9: up to 512 tokens and with 16, 32 or 64
values in each of several heads attention is one int8 kernel; else it falls into pieces.
"""

from __future__ import annotations

from dataclasses import replace

import onnx

from targets.contract import OnnxArtifact, Recipe
from targets.errors import CompileError, ConfigError
from targets.quantization.attention import AttentionBlock, read_attention
from targets.quantization.layers import read_layers

MAX_SEQ_LENGTH = 512
HEAD_SIZES = (16, 32, 64)
_HINT = "leave --attention-int8 out: attention is fused in float16"


def with_int8_attention(recipe: Recipe, graph: OnnxArtifact) -> Recipe:
    """Return an int8 recipe with attention in int8, a float one as it is.

    Raises:
        ConfigError: the graph's attention would not be fused in int8.
    """
    if recipe.scheme is None:
        return recipe
    require_fused(graph)
    return replace(
        recipe,
        scheme=replace(recipe.scheme, attention=True),
        why=f"{recipe.why}; attention takes int8 as well, as was asked for",
    )


def require_fused(graph: OnnxArtifact) -> None:
    """Refuse a graph whose attention TensorRT would not run as one int8 kernel.

    Raises:
        ConfigError: its texts are too long, its heads of another size, or its attention is no
            pair of products.
    """
    if graph.max_seq_length > MAX_SEQ_LENGTH:
        raise ConfigError(
            f"attention in int8 ends at {MAX_SEQ_LENGTH} tokens",
            why=f"the model takes {graph.max_seq_length}; beyond, TensorRT does not fuse it",
            hint=f"--max-seq-length {MAX_SEQ_LENGTH}, or {_HINT}",
        )
    blocks = _blocks(graph)
    wrong = [one for one in blocks if one.head_size not in HEAD_SIZES or one.num_heads < 2]
    if wrong or not blocks:
        known = ", ".join(map(str, HEAD_SIZES))
        raise ConfigError(
            f"attention in int8 needs several heads of {known} values",
            why=_shape_of(wrong[0]) if wrong else "the graph has no attention",
            hint=_HINT,
        )


def _shape_of(block: AttentionBlock) -> str:
    if not block.num_heads:
        return f"the graph does not say how many heads {block.path} has"
    return f"{block.path} has {block.num_heads} × {block.head_size}"


def _blocks(graph: OnnxArtifact) -> tuple[AttentionBlock, ...]:
    model = onnx.load(graph.path, load_external_data=False)
    try:
        return read_attention(model, read_layers(model))
    except CompileError as error:
        raise ConfigError(f"{error.what} in int8", why=error.why, hint=_HINT) from error
