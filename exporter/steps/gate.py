"""The rollout gate: what bundles say of themselves, against a policy file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from exporter.config import Thresholds, refuse_unknown
from exporter.deliver.report import Report
from exporter.deliver.report.document import TargetSection
from exporter.judge import combine, exit_code
from exporter.judge.policy import Policy
from exporter.judge.rollout import (
    STATUS,
    Judged,
    Rule,
    Waiver,
    judge_artifact,
    require_valid,
    waive,
)
from targets.contract import Verdict
from targets.errors import ConfigError, ExitCode, worst

_RULES, _WAIVERS = "rule", "waiver"


class RuleSettings(Thresholds):
    """One `[[rule]]` of a policy file; thresholds that it does not name are the defaults."""

    target: str = "*"
    device: str = "*"
    min_slice_mean_cosine: float | None = None
    min_slice_overlap: float | None = None


class WaiverSettings(BaseModel):
    """One `[[waiver]]` of a policy file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: str = "*"
    device: str = "*"
    check: str
    reason: str
    expires: date


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutPolicy:
    """What a policy file says: later rules win, and waivers end."""

    rules: tuple[Rule, ...] = ()
    waivers: tuple[Waiver, ...] = ()


def judge_report(report: Report, policy: RolloutPolicy) -> Report:
    """Judge the merged report of a fleet by a policy.

    Args:
        report: from `merged_report`.
        policy: from `load_policy`.

    Returns:
        The report with the checks of this policy, its verdict and its exit code.

    Raises:
        StepError: a report took neighbours at another k than the policy asks for.
    """
    targets = tuple(_judged(target, policy) for target in report.targets)
    verdicts = [combine(target.checks) for target in targets]
    codes = [
        ExitCode.STEP_FAILED if _died(target) else exit_code(verdict)
        for target, verdict in zip(targets, verdicts, strict=True)
    ]
    code = worst(*codes) if codes else exit_code("not_run")
    return replace(report, targets=targets, verdict=_worst(verdicts), exit_code=int(code))


def load_policy(path: Path | None, today: date) -> RolloutPolicy:
    """Read a policy file; without one, every artifact's own checks stand.

    Raises:
        ConfigError: it cannot be read, has an unknown key or a wrong value, or a waiver that has
            expired or gives no reason.
    """
    if path is None:
        return RolloutPolicy()
    table = _read(path)
    for key in table:
        if key not in (_RULES, _WAIVERS):
            raise ConfigError(
                f"{path}: unknown key {key!r}",
                why=f"a policy has [[{_RULES}]] and [[{_WAIVERS}]]",
                hint=f"write [[{_RULES}]] and thresholds below it",
            )
    rules = [_rule(one, f"{path} [[{_RULES}]]") for one in _tables(table, _RULES, path)]
    waivers = [_waiver(one, f"{path} [[{_WAIVERS}]]") for one in _tables(table, _WAIVERS, path)]
    require_valid(waivers, today)
    return RolloutPolicy(rules=tuple(rules), waivers=tuple(waivers))


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the policy {path} cannot be read", why=str(error)) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the policy {path} is not valid TOML", why=str(error)) from error


def _tables(table: Mapping[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    found = table.get(key, [])
    if isinstance(found, list) and all(isinstance(one, dict) for one in found):
        return found
    raise ConfigError(f"{path}: {key} must be tables", hint=f"write [[{key}]] and keys below it")


def _rule(table: Mapping[str, Any], source: str) -> Rule:
    refuse_unknown(table, RuleSettings, source)
    given = _validated(RuleSettings, table, source).model_dump()
    own = {name: given.pop(name) for name in RuleSettings.model_fields if name not in _THRESHOLDS}
    return Rule(policy=Policy(**given), **own)


_THRESHOLDS = frozenset(Thresholds.model_fields)


def _waiver(table: Mapping[str, Any], source: str) -> Waiver:
    refuse_unknown(table, WaiverSettings, source)
    return Waiver(**_validated(WaiverSettings, table, source).model_dump())


def _validated(model: type[BaseModel], table: Mapping[str, Any], source: str) -> BaseModel:
    try:
        return model.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{source}: {key} is not valid", why=first["msg"]) from error


def _judged(target: TargetSection, policy: RolloutPolicy) -> TargetSection:
    precision = target.recipe.precision if target.recipe else ""
    judged = Judged(
        target=target.target,
        device=target.device,
        status=target.status,
        reason=target.reason,
        checks=target.checks,
        fidelity=target.fidelity,
        latency=target.latency or (),
        size_bytes=target.artifact_size_bytes,
        is_baseline=precision == "float32",
    )
    checks = judge_artifact(judged, policy.rules)
    return replace(target, checks=waive(checks, target.target, target.device, policy.waivers))


def _died(target: TargetSection) -> bool:
    """Say whether a target failed, and no waiver speaks of that."""
    is_open = any(check.name == STATUS and check.verdict == "fail" for check in target.checks)
    return is_open and target.status == "failed"


def _worst(verdicts: Sequence[Verdict]) -> Verdict:
    order: tuple[Verdict, ...] = ("fail", "inconclusive", "not_run")
    return next((one for one in order if one in verdicts), "pass" if verdicts else "not_run")
