"""Which linear layers a recipe's overrides leave in float."""

from __future__ import annotations

from targets.contract import Recipe
from targets.errors import CompileError
from targets.quantization.layers import EncoderLayers, LinearLayer, match


def quantized_layers(recipe: Recipe, layers: EncoderLayers) -> tuple[LinearLayer, ...]:
    """Return the linear layers that a recipe computes in its own precision; later patterns win.

    Args:
        recipe: its overrides say which layers stay in float.
        layers: of the graph.

    Raises:
        CompileError: a pattern matches no linear layer, or no layer is left.
    """
    kept: set[str] = set()
    for override in recipe.overrides:
        try:
            nodes = {layer.node for layer in match(override.pattern, layers)}
        except CompileError as error:
            raise CompileError(
                f"recipe {recipe.name!r}: {error.what}", why=error.why, hint=error.hint
            ) from error
        kept = kept - nodes if override.precision == recipe.precision else kept | nodes
    chosen = tuple(layer for layer in layers.linears if layer.node not in kept)
    if not chosen:
        raise CompileError(
            f"recipe {recipe.name!r} leaves no layer in {recipe.precision}",
            hint="take a float recipe, or fewer layer precisions",
        )
    return chosen
