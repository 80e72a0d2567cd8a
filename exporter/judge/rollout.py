"""Whether a fleet may be rolled out: a policy for each target and device, and waivers that end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from fnmatch import fnmatchcase

from exporter.judge.gate import gate_point, not_run
from exporter.judge.policy import Policy
from exporter.judge.speed import INT8_GAIN, SPEEDUP, judge_speed
from exporter.judge.verdict import SIZE, judge_fidelity, judge_size
from exporter.values import Fidelity, Latency, LengthSlice
from targets.contract import Check
from targets.errors import ConfigError

STATUS = "status"
"""The check that an artifact was verified on its device at all."""
WAIVED = "waived"
_FEWEST_TEXTS = 20
"""A slice of fewer texts says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What artifacts of some targets on some devices must keep.

    Args:
        target: glob on the target's name.
        device: glob on the device's name.
        policy: the thresholds.
        min_slice_mean_cosine: least mean cosine of every slice by length.
        min_slice_overlap: least share of neighbours kept in every slice by length.
    """

    target: str = "*"
    device: str = "*"
    policy: Policy = field(default_factory=Policy)
    min_slice_mean_cosine: float | None = None
    min_slice_overlap: float | None = None

    def fits(self, target: str, device: str) -> bool:
        """Say whether the rule speaks of this artifact."""
        return fnmatchcase(target, self.target) and fnmatchcase(device, self.device)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiver:
    """A check that may be missed for a while, by somebody's decision.

    Args:
        target: glob on the target's name.
        device: glob on the device's name.
        check: glob on the check's name.
        reason: why it may be missed; shown wherever it is.
        expires: the last day on which it holds.
    """

    target: str = "*"
    device: str = "*"
    check: str
    reason: str
    expires: date

    def fits(self, target: str, device: str, check: str) -> bool:
        """Say whether the waiver speaks of this check."""
        pairs = ((target, self.target), (device, self.device), (check, self.check))
        return all(fnmatchcase(name, pattern) for name, pattern in pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What a report says of one artifact, as far as a rule needs it.

    `checks` are those that the run itself made, `status` and `reason` its own as well.
    """

    target: str
    device: str
    status: str
    reason: str
    checks: tuple[Check, ...]
    fidelity: Fidelity | None
    latency: tuple[Latency, ...]
    size_bytes: int | None
    is_baseline: bool


def judge_artifact(judged: Judged, rules: Sequence[Rule]) -> tuple[Check, ...]:
    """Judge one artifact by the last rule that fits; without a rule its own checks stand.

    What the rules say nothing of (precision, int8 against the best float) stays as it was found.
    An artifact that was not verified on its device has one more check, which does not pass.
    """
    status = _status(judged)
    rule = next((one for one in reversed(rules) if one.fits(judged.target, judged.device)), None)
    if rule is None or judged.fidelity is None:
        return (*judged.checks, *status)
    checks = [*judge_fidelity(judged.fidelity, rule.policy), *_slices(judged.fidelity, rule)]
    checks += _speed(judged, rule)
    if judged.size_bytes is not None:
        checks += judge_size(judged.size_bytes, rule.policy)
    again = {check.name for check in checks} | {SIZE, SPEEDUP}
    kept = [one for one in judged.checks if one.name not in again and _stays(one)]
    return (*checks, *kept, *status)


def waive(
    checks: Iterable[Check], target: str, device: str, waivers: Sequence[Waiver]
) -> tuple[Check, ...]:
    """Let waived checks pass, and say so.

    Args:
        checks: of one artifact.
        target: its target's name.
        device: its device's name.
        waivers: none of them expired.
    """
    return tuple(_waived(check, target, device, waivers) for check in checks)


def require_valid(waivers: Sequence[Waiver], today: date) -> None:
    """Refuse waivers that have run out or give no reason.

    Raises:
        ConfigError: names the waiver.
    """
    for one in waivers:
        if not one.reason.strip():
            raise ConfigError(
                f"the waiver of {one.check!r} gives no reason", hint="say why it may be missed"
            )
        if one.expires < today:
            raise ConfigError(
                f"the waiver of {one.check!r} for {one.target} on {one.device} expired on "
                f"{one.expires.isoformat()}",
                why=f"it was given because: {one.reason}",
                hint="mend what it waived, or decide again and give it a new date",
            )


def _stays(check: Check) -> bool:
    """Checks of another policy's thresholds go; findings about the run stay."""
    return check.name in ("precision", INT8_GAIN)


def _status(judged: Judged) -> tuple[Check, ...]:
    if judged.status == "verified":
        return ()
    reason = judged.reason or f"the artifact is {judged.status}"
    if judged.status in ("failed", "missing"):
        return (Check(name=STATUS, verdict="fail", value=None, threshold=None, reason=reason),)
    return (not_run(STATUS, None, f"{judged.status}: {reason}"),)


def _speed(judged: Judged, rule: Rule) -> tuple[Check, ...]:
    return judge_speed(judged.latency, rule.policy, is_baseline=judged.is_baseline)


def _slices(fidelity: Fidelity, rule: Rule) -> list[Check]:
    checks = []
    for one in fidelity.slices:
        if one.num_texts < _FEWEST_TEXTS:
            continue
        where = f"{one.low} to {one.high - 1} tokens"
        if rule.min_slice_mean_cosine is not None:
            checks.append(_slice_cosine(one, rule.min_slice_mean_cosine, where))
        if rule.min_slice_overlap is not None and one.overlap_at_k is not None:
            name, why = f"overlap, {where}", "neighbours are lost in texts of this length"
            checks.append(gate_point(name, one.overlap_at_k, rule.min_slice_overlap, why=why))
    return checks


def _slice_cosine(one: LengthSlice, threshold: float, where: str) -> Check:
    why = "texts of this length moved too far"
    return gate_point(f"mean_cosine, {where}", one.mean_cosine, threshold, why=why)


def _waived(check: Check, target: str, device: str, waivers: Sequence[Waiver]) -> Check:
    if check.verdict == "pass":
        return check
    found = next((one for one in waivers if one.fits(target, device, check.name)), None)
    if found is None:
        return check
    said = f"{WAIVED} until {found.expires.isoformat()}: {found.reason}"
    was = f" (was {check.verdict}: {check.reason})" if check.reason else f" (was {check.verdict})"
    return replace(
        check,
        verdict="pass",
        reason=said + was,
        details={**check.details, WAIVED: check.verdict},
    )
