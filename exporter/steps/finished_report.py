"""What a report says after a prepared artifact was finished: the section, and who did it when."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from exporter.deliver.report import Report, section_of
from exporter.deliver.report.document import TargetSection
from exporter.steps.workspace import Workspace
from exporter.values import TargetResult
from targets.errors import ConfigError


def section_before(report: Report, target: str, device: str) -> TargetSection:
    """Return what a report says of a target on a device. Raises: ConfigError."""
    for section in report.targets:
        if (section.target, section.device) == (target, device):
            return section
    raise ConfigError(
        f"the bundle's report does not speak of {target} on {device}",
        hint="prepare the bundle again with `exporter export`",
    )


def section_after(report: Report, result: TargetResult) -> TargetSection:
    """Return the new section; how the recipe was chosen stays what it was."""
    earlier = section_before(report, result.target, result.device)
    return replace(
        section_of(result), candidates=earlier.candidates, quantization=earlier.quantization
    )


def signed(work: Workspace, report: Report, command: str) -> Report:
    """Say in the provenance who finished it, and when."""
    earlier = report.provenance
    took = {name: round(seconds, 3) for name, seconds in work.stage_s.items()}
    provenance = replace(
        earlier,
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        command="; ".join(one for one in (earlier.command, command) if one),
        stage_s={**earlier.stage_s, **{f"finish: {name}": s for name, s in took.items()}},
        stages_from_cache=(*earlier.stages_from_cache, *work.made_utc),
        made_utc={**earlier.made_utc, **work.made_utc},
    )
    return replace(report, provenance=provenance)
