"""What an artifact must keep before it may be rolled out."""

from __future__ import annotations

import math
from dataclasses import dataclass

from targets.errors import ConfigError

_COSINES = ("min_mean_cosine", "min_p1_cosine", "min_stability")
_SHARES = ("min_overlap_at_k", "min_recall")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Thresholds of the gates; None switches an optional gate off.

    Args:
        min_mean_cosine: least mean cosine with FP32's embeddings.
        min_p1_cosine: least cosine of the worst 1 % of the texts.
        min_overlap_at_k: least share of FP32's own top k that is found.
        k: neighbours of overlap and recall.
        min_stability: least cosine of a text with itself in other company.
        min_speedup: least FP32 time / this time over the real mixes of lengths.
        require_finite: refuse NaN, infinity and zero vectors.
        max_size_bytes: largest artifact.
        min_recall: least share of FP32's own recall@k on relevance labels that is kept.

    Raises:
        ConfigError: if a threshold lies outside its range.
    """

    min_mean_cosine: float = 0.99
    min_p1_cosine: float = 0.97
    min_overlap_at_k: float = 0.95
    k: int = 10
    min_stability: float = 0.999
    min_speedup: float = 1.0
    require_finite: bool = True
    max_size_bytes: int | None = None
    min_recall: float | None = None

    def __post_init__(self) -> None:
        for name in _COSINES:
            self._require(name, -1.0, 1.0)
        for name in _SHARES:
            self._require(name, 0.0, 1.0)
        self._require("min_speedup", 0.0, math.inf)
        self._require("k", 1, math.inf)
        self._require("max_size_bytes", 1, math.inf)

    def _require(self, name: str, low: float, high: float) -> None:
        value: float | None = getattr(self, name)
        if value is None or (math.isfinite(value) and low <= value <= high):
            return
        limits = f"at least {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}"
        raise ConfigError(
            f"policy: {name} = {value} is out of range",
            why=f"it must be a number {limits}",
            hint=f"correct {name} in the policy",
        )
