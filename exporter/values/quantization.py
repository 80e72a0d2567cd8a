"""How the int8 forms of layers were found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodScore:
    """A way of quantizing, and its drift (1 - mean cosine) on held-out texts."""

    method: str
    drift: float
    chosen: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSensitivity:
    """What the layers that read one tensor cost in int8, all others in float.

    Args:
        layers: their module paths.
        drift: 1 - mean cosine on held-out texts.
        work_share: share of the multiplications of all linear layers, in (0, 1].
    """

    layers: tuple[str, ...]
    drift: float
    work_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationSummary:
    """How the static int8 forms of layers were found.

    Args:
        method: ranges and rounding, in words.
        scores: what was compared on held-out texts, best first.
        num_texts: texts that statistics were taken from.
        num_tokens: tokens of these.
        num_held_out: texts that methods and layers were compared on.
        table_sha256: of the calibration table.
        drift: of all layers in int8 together, on the held-out texts.
        reduced: layers whose weights keep seven bits, lest pairs of products saturate.
        sensitivity: one entry for each group of layers that read one tensor.
    """

    method: str
    scores: tuple[MethodScore, ...]
    num_texts: int
    num_tokens: int
    num_held_out: int
    table_sha256: str
    drift: float
    reduced: tuple[str, ...] = ()
    sensitivity: tuple[LayerSensitivity, ...]
