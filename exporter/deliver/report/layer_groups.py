"""Groups of layers that read one tensor: their names, and what each costs of the whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from exporter.values import LayerSensitivity


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCost:
    """One group's drift alone in int8 beside what it buys; shares lie in [0, 1]."""

    name: str
    drift: float
    drift_share: float
    work_share: float


def layer_costs(sensitivity: Sequence[LayerSensitivity]) -> tuple[LayerCost, ...]:
    """Return every group with its share of the sum of all drifts, in the order given."""
    drifts = [max(one.drift, 0.0) for one in sensitivity]
    whole = sum(drifts)
    return tuple(
        LayerCost(
            name=group_name(one.layers),
            drift=drift,
            drift_share=drift / whole if whole > 0.0 else 0.0,
            work_share=one.work_share,
        )
        for one, drift in zip(sensitivity, drifts, strict=True)
    )


def group_name(layers: Sequence[str]) -> str:
    """Write what module paths have in common once: "layer.0.self.{query,key,value}"."""
    parents = {path.rpartition(".")[0] for path in layers}
    if len(layers) == 1 or len(parents) > 1:
        return ", ".join(layers)
    parent = parents.pop()
    names = ",".join(path.rpartition(".")[2] for path in layers)
    return f"{parent}.{{{names}}}" if parent else names
