"""Attention in int8, where the user asks for it and the target has a kernel for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from exporter.config import Settings
from targets.contract import OnnxArtifact, QuantizesAttention, Recipe, Target
from targets.errors import ConfigError

_FLAG = "--attention-int8"


def require_targets(settings: Settings, targets: Iterable[Target]) -> None:
    """Refuse the flag, before any long work, where it could change nothing.

    Raises:
        ConfigError: a target has no attention in int8, or no int8 recipe is asked for.
    """
    if not settings.attention_int8:
        return
    for target in targets:
        if not isinstance(target, QuantizesAttention):
            raise ConfigError(
                f"{_FLAG}: {target.spec.name} has no attention in int8",
                why="its runtime fuses attention in float, or runs its products one by one",
                hint="take --target tensorrt or tensorrt-rtx for it, others in a run of their own",
            )
    if not settings.precision.startswith(("auto", "int8")):
        raise ConfigError(
            f"{_FLAG} does not go with --precision {settings.precision}",
            why="attention is int8 where linear layers are, not alone",
            hint="take --precision int8, or leave it out",
        )


def as_asked(
    settings: Settings, target: Target, recipes: Sequence[Recipe], graph: OnnxArtifact
) -> tuple[Recipe, ...]:
    """Return a target's recipes, int8 ones with attention in int8 if that was asked for.

    Raises:
        ConfigError: the target has no such kernel for this graph.
    """
    if not settings.attention_int8 or not isinstance(target, QuantizesAttention):
        return tuple(recipes)
    return tuple(target.with_int8_attention(recipe, graph) for recipe in recipes)
