"""What a pair of artifacts is to each other, and whether an index survives an upgrade."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from exporter.judge.gate import gate
from exporter.values import Compatibility, Estimate, Exchange, Survival, Upgrade
from targets.errors import ConfigError

_SURVIVAL: Mapping[Exchange, Survival] = {
    "drop-in": "yes",
    "degraded": "degraded",
    "re-index": "no",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangePolicy:
    """Where drop-in ends and where only a re-index helps; `docs/compatibility.md` says why.

    Args:
        k: neighbours per query.
        min_drop_in: least share of FP32's neighbours that a drop-in pair keeps.
        min_degraded: a pair that keeps less is of no use.

    Raises:
        ConfigError: a border is no share, or they are in the wrong order.
    """

    k: int = 10
    min_drop_in: float = 0.95
    min_degraded: float = 0.80

    def __post_init__(self) -> None:
        if not 0.0 <= self.min_degraded <= self.min_drop_in <= 1.0 or self.k < 1:
            raise ConfigError(
                f"drop-in from {self.min_drop_in:g} and degraded from {self.min_degraded:g} "
                f"at k = {self.k} are no borders",
                why="both are shares from 0 to 1, degraded is the lower one, k is at least 1",
                hint="for example --min-drop-in 0.95 --min-degraded 0.8",
            )


def exchange_of(kept: Estimate, policy: ExchangePolicy) -> tuple[Exchange, bool, str]:
    """Say what a pair is, whether the sample decides it, and why.

    Only what is proven is drop-in or re-index; all between is degraded.

    Args:
        kept: share that the pair keeps of what FP32 on both sides finds.
        policy: the borders.
    """
    drop_in = gate("drop-in", kept, policy.min_drop_in, samples="queries", unseen=0.0)
    if drop_in.verdict == "pass":
        return "drop-in", True, f"keeps at least {policy.min_drop_in:g} of FP32's neighbours"
    degraded = gate("degraded", kept, policy.min_degraded, samples="queries", unseen=0.0)
    if degraded.verdict == "fail":
        return "re-index", True, degraded.reason
    if degraded.verdict == "inconclusive":
        return "degraded", False, degraded.reason
    return "degraded", drop_in.verdict == "fail", drop_in.reason


def judge_upgrade(
    matrix: Compatibility, queries_by: Sequence[str], documents_by: Sequence[str]
) -> Upgrade:
    """Say whether an index by any of the old artifacts serves queries by all of the new ones.

    Args:
        matrix: the comparison.
        queries_by: names of the new artifacts.
        documents_by: names of the old ones.
    """
    cells = [matrix.cell(new, old) for new in queries_by for old in documents_by]
    gone = [f"{one.name}: {one.reason}" for one in matrix.missing]
    if not cells:
        reason = "nothing could be compared" + (f" ({'; '.join(gone)})" if gone else "")
        return Upgrade(
            survives="no",
            decided=False,
            queries_by=tuple(queries_by),
            documents_by=tuple(documents_by),
            worst=None,
            reason=reason,
        )
    worst = min(cells, key=lambda cell: cell.kept.interval.low)
    proven = [cell for cell in cells if cell.exchange == "re-index"]
    survives: Survival = "no" if proven else _SURVIVAL[worst.exchange]
    pair = f"queries by {worst.queries_by} on documents by {worst.documents_by}"
    lacking = f"; not compared: {'; '.join(gone)}" if gone else ""
    return Upgrade(
        survives=survives,
        decided=bool(proven) or (not gone and all(cell.decided for cell in cells)),
        queries_by=tuple(queries_by),
        documents_by=tuple(documents_by),
        worst=worst,
        reason=f"{pair}: {worst.reason}{lacking}",
    )
