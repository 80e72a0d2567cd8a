"""What each layer costs in int8, and what it buys; and which layers to leave in float.

A layer is tried alone: it in int8, all others in float. Drifts of single layers add up to that of
all layers together, to a few percent on all-MiniLM-L6-v2 (docs/quantization.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from exporter.optimize.probe import Probe, drift
from exporter.values import LayerSensitivity
from targets.contract import (
    FloatArray,
    LayerOverride,
    Progress,
    Recipe,
    TokenSequences,
    no_progress,
)
from targets.quantization.layers import LinearLayer
from targets.quantization.plan import LayerPlan
from targets.quantization.prepare import by_activation

KEPT_DRIFT = {"most": 0.75, "half": 0.5, "quarter": 0.25}
"""How much of the drift the mixed recipes may keep, by the ending of their names."""


def measure_sensitivity(
    probe: Probe,
    tokens: TokenSequences,
    reference: FloatArray,
    plans: Sequence[LayerPlan],
    progress: Progress = no_progress,
) -> tuple[LayerSensitivity, ...]:
    """Quantize the readers of one activation at a time.

    Args:
        probe: made of the same graph.
        tokens: texts that no statistic was taken from.
        reference: their embeddings in float, shape [num_texts, dim].
        plans: int8 forms of all layers.
        progress: counts groups of layers.

    Returns:
        One entry for each group of layers that read one tensor, in execution order.
    """
    groups = by_activation([plan.layer for plan in plans])
    sizes = [sum(_products(plan) for plan in plans if plan.layer in group) for group in groups]
    found = []
    for number, (group, size) in enumerate(zip(groups, sizes, strict=True), start=1):
        rows = probe.embed(tokens, [plan for plan in plans if plan.layer in group])
        found.append(
            LayerSensitivity(
                layers=tuple(layer.path for layer in group),
                drift=max(drift(reference, rows), 0.0),
                work_share=size / sum(sizes),
            )
        )
        progress(number, len(groups))
    return tuple(found)


def _products(plan: LayerPlan) -> int:
    """Multiplications per token."""
    assert plan.weight_integers is not None  # the probe needs them as well
    return int(plan.weight_integers.size)


def layers_to_keep(sensitivity: Sequence[LayerSensitivity], kept_drift: float) -> tuple[str, ...]:
    """Return the fewest layers, weighed by their work, that must stay in float.

    Args:
        sensitivity: of all groups.
        kept_drift: share of the whole drift that may stay, in (0, 1).

    Returns:
        Paths of the layers; those that cost most drift for the work that they buy come first.
    """
    whole = sum(one.drift for one in sensitivity)
    kept: list[str] = []
    left = whole
    for one in sorted(sensitivity, key=lambda one: -one.drift / max(one.work_share, 1e-12)):
        if left <= kept_drift * whole:
            break
        kept += one.layers
        left -= one.drift
    return tuple(kept)


def mixed_recipes(base: Recipe, sensitivity: Sequence[LayerSensitivity]) -> tuple[Recipe, ...]:
    """Return recipes that leave the layers in float which cause most of the drift.

    Args:
        base: all linear layers in int8.
        sensitivity: measured with the same scheme.
    """
    recipes: list[Recipe] = []
    for ending, share in KEPT_DRIFT.items():
        kept = layers_to_keep(sensitivity, share)
        if not kept or len(kept) == sum(len(one.layers) for one in sensitivity):
            continue
        overrides = (
            *base.overrides,
            *(LayerOverride(pattern=path, precision=base.float_precision) for path in kept),
        )
        if any(overrides == other.overrides for other in recipes):
            continue
        recipes.append(
            replace(
                base,
                name=f"{base.name}-{ending}",
                overrides=overrides,
                why=f"the {len(kept)} layers that cause {1 - share:.0%} of the drift stay in "
                f"{base.float_precision}, all other linear layers are int8",
            )
        )
    return tuple(recipes)


def with_layer_precisions(
    recipe: Recipe, asked: Sequence[LayerOverride], layers: Sequence[LinearLayer]
) -> Recipe:
    """Put the user's layer precisions over a recipe's own.

    Args:
        recipe: an int8 recipe.
        asked: patterns in the order given; a later one wins.
        layers: linear layers of the graph; those that a user's pattern names lose the
            recipe's own override.
    """
    named = {
        layer.path
        for layer in layers
        for one in asked
        if fnmatchcase(layer.path, one.pattern) or (one.pattern == "ffn.down" and layer.ends_ffn)
    }
    own = tuple(one for one in recipe.overrides if one.pattern not in named)
    return replace(recipe, overrides=(*own, *asked))
