"""`python -m benchmarks.gate_power`: how often the gates are wrong, by simulation.

Runs are drawn whose truth is known, and judged by the very code that judges real ones. Every
query keeps some of its k neighbours; how many is drawn from a binomial distribution, whose spread
(.056 at .968) is that of int8 artifacts as measured (.05). Two questions, for each sample size:

- no true change: how often does `compare` call the new artifact worse, and how often does the
  gate fail an artifact that lies two points above its threshold?
- a true loss of two points: how often does `compare` let it through, and how often does the gate
  pass an artifact that lies two points below its threshold?
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from exporter.deliver.codec import dump_json
from exporter.judge.compare import compare_estimates
from exporter.judge.fidelity import overlap_estimate
from exporter.judge.gate import gate
from exporter.values import Estimate
from targets.errors import ExitCode

RESULTS = Path(__file__).with_name("results") / "gate_power.json"
K, TRUE_OVERLAP, LOSS = 10, 0.97, 0.02
THRESHOLD = TRUE_OVERLAP - LOSS
MOST_WRONG = 0.05
SIZES = (250, 500, 1050)


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """Shares of wrong answers with one number of queries.

    Args:
        num_queries: of each run.
        false_alarms: `compare` of two runs of the same truth fails.
        missed: `compare` lets a true loss through.
        gate_false_alarms: the gate fails what lies `LOSS` above its threshold.
        gate_missed: the gate passes what lies `LOSS` below its threshold.
        gate_undecided: the gate cannot decide one of these two.
    """

    num_queries: int
    false_alarms: float
    missed: float
    gate_false_alarms: float
    gate_missed: float
    gate_undecided: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """The whole result."""

    created_utc: str
    command: str
    num_runs: int
    true_overlap: float
    loss: float
    k: int
    recommended_queries: int | None
    rows: tuple[Power, ...]


def measure(num_queries: int, num_runs: int, seed: int) -> Power:
    """Draw runs of one size and count wrong answers."""
    rng = np.random.default_rng([seed, num_queries])

    def run(overlap: float) -> Estimate:
        kept = rng.binomial(K, overlap, num_queries) / K
        return overlap_estimate(kept, int(rng.integers(1 << 31)))

    counts = np.zeros(5, np.int64)
    for _ in range(num_runs):
        base, same, worse = run(TRUE_OVERLAP), run(TRUE_OVERLAP), run(THRESHOLD)
        below = run(THRESHOLD - LOSS)
        good, bad = (_gated(one) for one in (same, below))
        counts += (
            compare_estimates("overlap", base, same).verdict == "fail",
            compare_estimates("overlap", base, worse).verdict == "pass",
            good == "fail",
            bad == "pass",
            "inconclusive" in (good, bad),
        )
    shares = [float(count) / num_runs for count in counts]
    return Power(
        num_queries=num_queries,
        false_alarms=shares[0],
        missed=shares[1],
        gate_false_alarms=shares[2],
        gate_missed=shares[3],
        gate_undecided=shares[4],
    )


def is_right(power: Power) -> bool:
    """Say whether all shares of wrong answers are small enough."""
    wrong = (power.false_alarms, power.missed, power.gate_false_alarms, power.gate_missed)
    return max(wrong) <= MOST_WRONG


def _gated(estimate: Estimate) -> str:
    return gate("overlap", estimate, THRESHOLD, samples="queries", unseen=0.0).verdict


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate, print, save; exit code 1 when no size is right."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate_power")
    parser.add_argument("--runs", type=int, default=200, help="runs of each size")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    rows = tuple(measure(size, given.runs, given.seed) for size in SIZES)
    recommended = next((row.num_queries for row in rows if is_right(row)), None)
    for row in rows:
        print(
            f"{row.num_queries:5d} queries: compare fails {row.false_alarms:.1%} without a change, "
            f"lets {row.missed:.1%} of a {LOSS:.0%} loss through; gate fails "
            f"{row.gate_false_alarms:.1%} above, passes {row.gate_missed:.1%} below, cannot decide "
            f"{row.gate_undecided:.1%}"
        )
    document = Document(
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        command=shlex.join(["python", "-m", "benchmarks.gate_power", *sys.argv[1:]]),
        num_runs=given.runs,
        true_overlap=TRUE_OVERLAP,
        loss=LOSS,
        k=K,
        recommended_queries=recommended,
        rows=rows,
    )
    given.output.write_bytes(dump_json(document) + b"\n")
    print(f"recommended: {recommended} queries; saved {given.output.name}")
    return int(ExitCode.PASS if recommended else ExitCode.GATE_FAILED)


if __name__ == "__main__":
    raise SystemExit(main())
