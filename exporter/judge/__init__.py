"""What is true of an artifact: latency, fidelity, the verdict.

Statistics only: nothing here embeds, times or decides what to build. Every figure that a
gate depends on carries an interval, and a sample too small to decide stays inconclusive.
"""

from __future__ import annotations

from exporter.judge.compatibility import Embedded, compare_members
from exporter.judge.drift import ShapeMismatchError, cosine_drift, stability_from
from exporter.judge.exchange import ExchangePolicy, judge_upgrade
from exporter.judge.fidelity import assess
from exporter.judge.gate import not_run
from exporter.judge.index import Index
from exporter.judge.latency import samples_for_percentile, summarize
from exporter.judge.neighbours import overlap_at_k
from exporter.judge.policy import Policy
from exporter.judge.precision import PRECISION, judge_precision
from exporter.judge.speed import SPEEDUP, judge_int8_gain, judge_speed, mean_speedup
from exporter.judge.verdict import (
    combine,
    exit_code,
    judge_fidelity,
    judge_non_finite,
    judge_size,
)

__all__ = [
    "PRECISION",
    "SPEEDUP",
    "Embedded",
    "ExchangePolicy",
    "Index",
    "Policy",
    "ShapeMismatchError",
    "assess",
    "combine",
    "compare_members",
    "cosine_drift",
    "exit_code",
    "judge_fidelity",
    "judge_int8_gain",
    "judge_non_finite",
    "judge_precision",
    "judge_size",
    "judge_speed",
    "judge_upgrade",
    "mean_speedup",
    "not_run",
    "overlap_at_k",
    "samples_for_percentile",
    "stability_from",
    "summarize",
]
