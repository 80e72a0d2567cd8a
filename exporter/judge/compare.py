"""What became worse between two artifacts, beyond what their samples can tell by chance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from exporter.judge.gate import not_run
from exporter.values import Estimate, Fidelity, Latency
from targets.contract import Check, Verdict

GROWTH = 0.05
"""An artifact this much larger than before is a regression."""
_NOT_MEASURED = "not measured in {}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a report says of one artifact, as far as a comparison needs it.

    `fingerprint` is the device's; latency compares within one only.
    """

    fidelity: Fidelity | None
    latency: tuple[Latency, ...]
    size_bytes: int | None
    fingerprint: str


def compare(base: Measured, new: Measured) -> tuple[Check, ...]:
    """Compare a new artifact with an earlier one of the same target and device.

    A figure is worse when its whole interval lies below the earlier one's: both samples have
    their noise, and two intervals that touch tell nothing. That is cautious: a small loss may
    pass, noise hardly ever fails.

    Returns:
        Checks named after the figures; `value` is new, `threshold` what it was.
    """
    return (*_fidelity(base.fidelity, new.fidelity), *_size(base, new), *_latency(base, new))


def _fidelity(base: Fidelity | None, new: Fidelity | None) -> Iterator[Check]:
    if base is None or new is None:
        where = "the earlier report" if base is None else "the new one"
        yield not_run("mean_cosine", None, _NOT_MEASURED.format(where))
        return
    yield compare_estimates("mean_cosine", base.mean_cosine, new.mean_cosine)
    yield compare_estimates("p1_cosine", base.p1_cosine, new.p1_cosine)
    if base.overlap_at_k and new.overlap_at_k and base.k == new.k:
        yield compare_estimates(f"overlap@{new.k}", base.overlap_at_k, new.overlap_at_k)


def _size(base: Measured, new: Measured) -> Iterator[Check]:
    if base.size_bytes is None or new.size_bytes is None:
        return
    limit = base.size_bytes * (1.0 + GROWTH)
    grown = new.size_bytes > limit
    yield Check(
        name="size",
        verdict="fail" if grown else "pass",
        value=float(new.size_bytes),
        threshold=float(base.size_bytes),
        unit="bytes",
        reason=f"more than {GROWTH:.0%} larger than before" if grown else "",
    )


def _latency(base: Measured, new: Measured) -> Iterator[Check]:
    if not base.latency or not new.latency:
        yield not_run("speedup", None, "no latency was taken on both sides", unit="x")
        return
    if base.fingerprint != new.fingerprint:
        reason = f"other hardware: {base.fingerprint} before, {new.fingerprint} now"
        yield not_run("speedup", None, reason, unit="x")
        return
    before = {one.workload: one.speedup for one in base.latency}
    for one in new.latency:
        earlier = before.get(one.workload)
        if earlier is not None and one.speedup is not None:
            check = compare_estimates(f"speedup, {one.workload}", earlier, one.speedup)
            yield replace(check, unit="x")


def compare_estimates(name: str, base: Estimate, new: Estimate) -> Check:
    """Say whether a figure is worse than it was; more is better."""
    worse = new.interval.high < base.interval.low
    verdict: Verdict = "fail" if worse else "pass"
    reason = ""
    if worse:
        reason = f"beyond the noise: it was {_span(base)} and is {_span(new)}"
    elif new.value < base.value:
        reason = f"within the noise: it was {_span(base)} and is {_span(new)}"
    return Check(
        name=name,
        verdict=verdict,
        value=new.value,
        threshold=base.value,
        interval=new.interval,
        reason=reason,
        details={"samples": f"{base.num_samples} before, {new.num_samples} now"},
    )


def _span(estimate: Estimate) -> str:
    return f"{estimate.value:.4g} [{estimate.interval.low:.4g}, {estimate.interval.high:.4g}]"
