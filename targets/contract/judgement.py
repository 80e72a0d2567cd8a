"""A question of the policy, answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal["pass", "fail", "inconclusive", "not_run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A confidence interval."""

    low: float
    high: float
    confidence: float = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One question of the policy, answered.

    `not_run` needs a reason; `inconclusive` says in `reason` what would decide it.
    """

    name: str
    verdict: Verdict
    value: float | None
    threshold: float | None
    unit: str = ""
    interval: Interval | None = None
    reason: str = ""
    details: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.verdict in ("not_run", "inconclusive") and not self.reason:
            raise ValueError(f"check {self.name!r} is {self.verdict} without a reason")
