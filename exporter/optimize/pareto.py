"""The Pareto front of speed against closeness to FP32.

A candidate is dominated by one that is at least as fast and at least as close, and better
in one of the two. Closeness is the overlap of neighbours, then the mean cosine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from exporter.values import CandidateResult, Fidelity


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A judged candidate.

    Args:
        name: of its recipe.
        speedup: over FP32 on the mixes that decide.
        overlap: share of FP32's own neighbours that are kept; 0 where there were too few
            documents to take it, for every candidate alike.
        mean_cosine: with FP32's embeddings; tells candidates of the same overlap apart.
    """

    name: str
    speedup: float
    overlap: float
    mean_cosine: float

    @property
    def closeness(self) -> tuple[float, float]:
        """What is compared, the first difference decides."""
        return self.overlap, self.mean_cosine


def closeness_of(fidelity: Fidelity | None) -> tuple[float, float]:
    """Return what tells how close to FP32 a candidate is; the first difference decides."""
    if fidelity is None:
        return 0.0, 0.0
    overlap = fidelity.overlap_at_k
    return (overlap.value if overlap else 0.0, fidelity.mean_cosine.value)


def dominates(one: Point, other: Point) -> bool:
    """Say whether `one` is nowhere behind `other` and ahead of it somewhere."""
    nowhere_behind = one.speedup >= other.speedup and one.closeness >= other.closeness
    return nowhere_behind and (one.speedup, one.closeness) != (other.speedup, other.closeness)


def dominators(points: Sequence[Point]) -> dict[str, str | None]:
    """Return for each point the member of the front that dominates it; None: it is on the front.

    Of several, the closest to FP32 is named: it costs no quality at all to prefer it.
    """
    front = [p for p in points if not any(dominates(other, p) for other in points)]
    best_first = sorted(front, key=lambda p: (p.closeness, p.speedup), reverse=True)
    return {
        p.name: next((other.name for other in best_first if dominates(other, p)), None)
        for p in points
    }


def mark_front(
    results: Sequence[CandidateResult], speedups: Mapping[str, float]
) -> tuple[CandidateResult, ...]:
    """Mark the candidates on the front; the others that were judged say who dominates them.

    Args:
        results: all candidates; those without fidelity or without a speed-up were not judged
            and take no part.
        speedups: recipe name → speed-up over FP32 on the mixes that decide.
    """
    points = [point for r in results if (point := _point(r, speedups)) is not None]
    by_name = dominators(points)
    return tuple(_marked(result, by_name) for result in results)


def _point(result: CandidateResult, speedups: Mapping[str, float]) -> Point | None:
    name, fidelity = result.recipe.name, result.fidelity
    if fidelity is None or name not in speedups:
        return None
    overlap, mean_cosine = closeness_of(fidelity)
    return Point(name=name, speedup=speedups[name], overlap=overlap, mean_cosine=mean_cosine)


def _marked(result: CandidateResult, by_name: Mapping[str, str | None]) -> CandidateResult:
    name = result.recipe.name
    if name not in by_name:
        return result
    dominator = by_name[name]
    if dominator is None:
        return replace(result, on_front=True)
    reason = f"{result.reason}; dominated by {dominator}: at least as fast and as close to FP32"
    return replace(result, reason=reason)
