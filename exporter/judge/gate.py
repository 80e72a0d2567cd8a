"""One figure with its interval against one threshold.

The lower end at or above the threshold passes, the upper end below it fails, and what
lies between is inconclusive: the check then says how many samples would decide it.
"""

from __future__ import annotations

import math

from exporter.judge.intervals import samples_to_see, unseen_share
from exporter.values import Estimate
from targets.contract import Check, Verdict

# An estimate this close to its threshold is not worth waiting for.
_MAX_GROWTH = 100
_MAX_GROWTH_OF_TINY_SAMPLES = 1000


def gate(
    name: str,
    estimate: Estimate,
    threshold: float,
    *,
    samples: str,
    unit: str = "",
    unseen: float | None = None,
    min_samples: int = 1,
) -> Check:
    """Judge an estimate that must reach a threshold.

    Args:
        name: of the check.
        estimate: figure, interval and number of samples.
        threshold: least value that passes.
        samples: what was sampled, in the plural: "queries", "texts", "rounds".
        unit: of the figure.
        unseen: value of the samples that may have been missed, where the interval allows
            for them (`intervals.allow_for_unseen`).
        min_samples: below this number the figure has no lower bound at all.
    """
    verdict = decide(estimate, threshold)
    reason = ""
    if verdict == "inconclusive":
        needed = samples_to_decide(estimate, threshold, unseen=unseen, min_samples=min_samples)
        reason = _undecided(estimate, threshold, samples, needed)
    elif verdict == "fail":
        reason = f"{_range(estimate)} lies below {threshold:g}"
    return Check(
        name=name,
        verdict=verdict,
        value=estimate.value,
        threshold=threshold,
        unit=unit,
        interval=estimate.interval,
        reason=reason,
        details={"samples": f"{estimate.num_samples} {samples}"},
    )


def gate_point(name: str, value: float, threshold: float, *, unit: str = "", why: str) -> Check:
    """Judge a figure that has no interval; `why` is the reason of a failure."""
    passed = value >= threshold
    return Check(
        name=name,
        verdict="pass" if passed else "fail",
        value=value,
        threshold=threshold,
        unit=unit,
        reason="" if passed else why,
    )


def not_run(name: str, threshold: float | None, reason: str, *, unit: str = "") -> Check:
    """Say that a check could not be made, and why."""
    return Check(
        name=name, verdict="not_run", value=None, threshold=threshold, unit=unit, reason=reason
    )


def decide(estimate: Estimate, threshold: float) -> Verdict:
    """Compare an interval with the least value that passes."""
    if estimate.interval.low >= threshold:
        return "pass"
    return "fail" if estimate.interval.high < threshold else "inconclusive"


def samples_to_decide(
    estimate: Estimate, threshold: float, *, unseen: float | None = None, min_samples: int = 1
) -> int | None:
    """Estimate how many samples would put the threshold outside the interval.

    Half-widths shrink with 1 / sqrt(n); what may have been missed shrinks with 1 / n.

    Returns:
        The number of samples in all; None where the estimate lies so close to the
        threshold that no reasonable number decides.
    """
    num_samples, value = estimate.num_samples, estimate.value
    if num_samples < min_samples:
        return min_samples
    margin = value - threshold
    if margin == 0:
        return None
    end = estimate.interval.low if margin > 0 else estimate.interval.high
    needed = num_samples * ((value - end) / margin) ** 2
    if margin > 0 and unseen is not None:
        to_see = samples_to_see(margin / (value - unseen))
        needed = to_see if _missed_binds(estimate, unseen) else max(needed, to_see)
    return _within_reason(needed, num_samples)


def _missed_binds(estimate: Estimate, unseen: float) -> bool:
    missed = unseen_share(estimate.num_samples) * (estimate.value - unseen)
    return math.isclose(estimate.value - estimate.interval.low, missed, rel_tol=1e-6)


def _within_reason(needed: float, num_samples: int) -> int | None:
    limit = max(_MAX_GROWTH * num_samples, _MAX_GROWTH_OF_TINY_SAMPLES)
    return math.ceil(needed) if needed <= limit else None


def _undecided(estimate: Estimate, threshold: float, samples: str, needed: int | None) -> str:
    found = f"{estimate.num_samples} {samples} leave {_range(estimate)} around {threshold:g}"
    if needed is None:
        return f"{found}; the figure lies too close to it for any reasonable number to decide"
    return f"{found}; about {max(needed, estimate.num_samples + 1)} {samples} would decide"


def _range(estimate: Estimate) -> str:
    return f"{estimate.interval.low:.4g} to {estimate.interval.high:.4g}"
