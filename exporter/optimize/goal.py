"""What the choice is for: who leads, who cannot win any more, who meets in the final."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from exporter.optimize.workloads import MIX_BATCHED, MIX_SINGLE
from exporter.values import Estimate, Objective

HEAT_MARGIN = 0.2
"""How far behind the fastest a candidate of the heat may be and still race on; single rounds
of one artifact were seen to differ by up to 15 % on a shared machine."""

FLOAT_MARGIN = 0.5
"""The same for a float behind an int8 leader: int8 must be proven faster than the best float, so
that one is only left out where no noise has put it there. In a heat whose truth was a tie, it was
seen at two thirds of int8's speed-up."""

SLOWER_THAN_FP32 = 0.85
"""A candidate this much slower than FP32 in the heat cannot win (see `HEAT_MARGIN`)."""

TIE = 0.05
"""Finalists this close to the fastest are as fast: single runs on one machine differ by that."""

FLOAT_TIE = 0.1
"""So close a float finalist is taken before int8, which costs neighbours for certain and would
have to be proven faster than float by a second, independent timing."""

MAX_FASTEST = 2
"""Of the final by speed alone; the closest to FP32 and the fastest float come besides."""

_DECIDING: Mapping[Objective, str] = {"latency": MIX_SINGLE, "throughput": MIX_BATCHED}
_PRAISE: Mapping[Objective, str] = {
    "balanced": "fastest",
    "latency": "fastest on single requests",
    "throughput": "fastest in batches",
    "size": "smallest that is fast enough and",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrant:
    """A candidate as the race sees it.

    Args:
        name: of its recipe.
        speedup: over FP32 on the mixes that decide.
        size_bytes: of its artifact.
        closeness: to FP32, larger is closer; only compared.
        is_float: nothing of it is int8.
    """

    name: str
    speedup: float
    size_bytes: int = 0
    closeness: tuple[float, ...] = ()
    is_float: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What the choice is for.

    Args:
        objective: "size" takes the smallest that is fast enough, the others the fastest.
        min_speedup: over FP32; less is not fast enough.
        mixes: the timed mixes whose speed-ups decide.
    """

    objective: Objective = "balanced"
    min_speedup: float = 1.0
    mixes: tuple[str, ...] = (MIX_SINGLE, MIX_BATCHED)

    @classmethod
    def of(cls, objective: Objective, min_speedup: float, timed: Sequence[str]) -> Goal:
        """Let single requests decide on latency and batches on throughput, if they were timed."""
        wanted = _DECIDING.get(objective)
        mixes = (wanted,) if wanted in timed and wanted is not None else tuple(timed)
        return cls(objective=objective, min_speedup=min_speedup, mixes=mixes)

    @property
    def where(self) -> str:
        """The deciding mixes in words."""
        return "the mixes" if len(self.mixes) > 1 else self.mixes[0]

    def praise_of(self, winner: str, entrants: Sequence[Entrant]) -> str:
        """Why the winner of these entrants wins."""
        fastest = self.ranked(entrants)[0].name if entrants else winner
        if fastest != winner:
            by_name = {one.name: one for one in entrants}
            tie = _tie(by_name[winner]) if winner in by_name else TIE
            return f"as fast as {fastest} within {tie:.0%}, and closer to FP32"
        verb = "keeps" if self.objective == "size" else "that keeps"
        return f"{_PRAISE[self.objective]} {verb} the promised quality"

    def ranked(self, entrants: Sequence[Entrant]) -> list[Entrant]:
        """Sort entrants, the best first; equals keep their order."""
        return sorted(entrants, key=self._rank)

    def _rank(self, one: Entrant) -> tuple[float, ...]:
        if self.objective != "size":
            return (-one.speedup,)
        fast_enough = one.speedup >= self.min_speedup
        return (0.0, one.size_bytes, -one.speedup) if fast_enough else (1.0, -one.speedup)

    def winner(self, entrants: Sequence[Entrant]) -> Entrant:
        """Return the one that is taken: of those as fast as the fastest, the closest to FP32.

        A difference that a second run may turn round must not cost any quality. For the size,
        the first in rank.

        Args:
            entrants: at least one.
        """
        ranked = self.ranked(entrants)
        if self.objective == "size":
            return ranked[0]
        fastest = ranked[0].speedup
        level = [one for one in ranked if one.speedup >= fastest * (1.0 - _tie(one))]
        return max(level, key=lambda one: one.closeness)

    def is_worth_int8(self, gain: Estimate) -> bool:
        """Say whether int8 is faster than a float by more than a tie, and beyond the noise.

        Args:
            gain: time of the float / time of int8, on the mixes that decide.
        """
        return gain.value * (1.0 - FLOAT_TIE) >= 1.0 and gain.interval.low > 1.0

    def why_beaten(self, one: Entrant, leader: Entrant | None) -> str | None:
        """Say why an entrant of the heat cannot win any more; None: it may.

        Args:
            one: the entrant. A speed-up of 0 stands for one that did not run.
            leader: who leads among those that keep the promised quality.
        """
        bar = SLOWER_THAN_FP32 * (self.min_speedup if self.objective == "size" else 1.0)
        against = "FP32"
        sure = 0.0 if leader is None else leader.speedup * (1.0 - _margin(one, leader))
        if leader is not None and self.objective != "size" and sure > bar:
            bar, against = sure, f"{leader.name} ({leader.speedup:.2f}x)"
        if 0.0 < one.speedup < bar:
            return f"{one.speedup:.2f}x FP32 in the heat: cannot win against {against}, not judged"
        larger = leader is not None and one.size_bytes >= leader.size_bytes
        if self.objective == "size" and leader is not None and larger:
            return (
                f"{_megabytes(one)} is not smaller than {leader.name} ({_megabytes(leader)}), "
                "which keeps the promised quality: not judged"
            )
        return None

    def leader(self, one: Entrant, before: Entrant | None) -> Entrant | None:
        """Return who leads after `one` turned out to keep the promised quality."""
        if self.objective == "size" and self._sure(one) < self.min_speedup:
            return before  # perhaps not fast enough: nobody may be left out for its sake
        return one if before is None else self.ranked([before, one])[0]

    def _sure(self, one: Entrant) -> float:
        """The speed-up that an entrant of the heat has at least."""
        return one.speedup * (1.0 - HEAT_MARGIN)

    def finalists(self, entrants: Sequence[Entrant]) -> tuple[str, ...]:
        """Return those of the heat that may yet win, the best first.

        Two rounds give no interval worth the name, so a fixed margin stands for it: out is
        who stays behind the fastest even at the friendly end of it. Of the others the fastest
        meet, and with them the closest to FP32 and the fastest float, which win a tie: int8 will
        have to be faster than that one, so it is only left out where it is far behind. For
        the size, the smallest that is fast enough beyond doubt comes as well, or else the
        fastest.
        """
        if self.objective == "size":
            return self._small_finalists(entrants)
        ranked = self.ranked(entrants)
        hopeful = [one for one in ranked if one.speedup >= self._sure(ranked[0])]
        closest = sorted(hopeful, key=lambda one: one.closeness, reverse=True)[:1]
        floats = [
            one
            for one in ranked
            if one.is_float and one.speedup >= ranked[0].speedup * (1.0 - _margin(one, ranked[0]))
        ][:1]
        names = {one.name for one in (*hopeful[:MAX_FASTEST], *closest, *floats)}
        return tuple(one.name for one in ranked if one.name in names)

    def _small_finalists(self, entrants: Sequence[Entrant]) -> tuple[str, ...]:
        by_size = sorted(entrants, key=lambda one: (one.size_bytes, -one.speedup))
        hopeful = [one for one in by_size if one.speedup >= SLOWER_THAN_FP32 * self.min_speedup]
        sure = [one for one in by_size if self._sure(one) >= self.min_speedup]
        fastest = sorted(hopeful, key=lambda one: -one.speedup)
        names = [one.name for one in (*hopeful[:MAX_FASTEST], *(sure or fastest)[:1])]
        return tuple(dict.fromkeys(names))

    def comparison(self, one: Entrant, winner: Entrant) -> str:
        """Say how an entrant stands to the winner."""
        if self.objective == "size":
            return (
                f"{_megabytes(one)} at {one.speedup:.2f}x FP32, "
                f"{winner.name} {_megabytes(winner)} at {winner.speedup:.2f}x"
            )
        if one.speedup > winner.speedup and one.closeness < winner.closeness:
            return (
                f"{one.speedup:.2f}x FP32 on {self.where}, not clearly more than {winner.name} "
                f"({winner.speedup:.2f}x), which is closer to FP32"
            )
        return f"{one.speedup:.2f}x FP32 on {self.where}, {winner.name} {winner.speedup:.2f}x"


def _margin(one: Entrant, leader: Entrant) -> float:
    return FLOAT_MARGIN if one.is_float and not leader.is_float else HEAT_MARGIN


def _tie(one: Entrant) -> float:
    return FLOAT_TIE if one.is_float else TIE


def _megabytes(one: Entrant) -> str:
    return f"{one.size_bytes / 1e6:.1f} MB"
