"""Attention in int8: what only some runtimes have a kernel for."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from targets.contract.graph import OnnxArtifact
from targets.contract.recipes import Recipe


@runtime_checkable
class QuantizesAttention(Protocol):
    """What a target may offer besides: the products inside attention in int8, where asked for."""

    def with_int8_attention(self, recipe: Recipe, graph: OnnxArtifact) -> Recipe:
        """Return the recipe with attention in int8, if it is made of planned layers (Q/DQ).

        Raises:
            ConfigError: the target has no such kernel for this graph; says why.
        """
