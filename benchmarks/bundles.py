"""Our own side of a comparison: the artifact in a bundle, with the plan that ships it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from exporter.deliver.report import Report
from exporter.deliver.report.document import TargetSection
from exporter.steps.bundled import artifact_of, chosen_way, open_bundle, plan_of, reported_threads
from targets.contract import LOCAL, Hardware, RunPlan
from targets.errors import ExitCode, StepError, UsageError

DEFAULT_TARGET = "openvino"
_FINISHED = (ExitCode.PASS, ExitCode.GATE_FAILED, ExitCode.INCONCLUSIVE)


def ensure_bundle(bundle: Path, target: str = DEFAULT_TARGET) -> Report:
    """Read a bundle's report; export the built-in model first where there is no bundle.

    Args:
        bundle: folder of the bundle.
        target: what it is exported for where it is missing.

    Raises:
        StepError: the export failed.
        StorageError: it is no bundle, or its files are not those of its manifest.
    """
    if not bundle.exists():
        command = [sys.executable, "-m", "exporter", "export", "--target", target]
        done = subprocess.run([*command, "-o", str(bundle)], stdout=subprocess.DEVNULL, check=False)
        if done.returncode not in _FINISHED:
            raise StepError(
                f"{bundle} could not be exported",
                why=f"exporter export ended with exit code {done.returncode}",
                hint="see its message above",
            )
    return open_bundle(bundle).report


def chosen_section(report: Report, target: str = DEFAULT_TARGET) -> TargetSection:
    """Return what a report says of a target that was verified on this machine.

    Raises:
        UsageError: the bundle holds no verified artifact of that target.
    """
    for section in report.targets:
        verified_here = section.status == "verified" and section.device == LOCAL
        if section.target == target and verified_here:
            return section
    found = [f"{one.target} ({one.status} on {one.device})" for one in report.targets]
    raise UsageError(
        f"the bundle holds no verified artifact for {target} on this machine",
        why=f"its report is about {', '.join(found) or 'nothing'}",
        hint=f"build one with: exporter export --target {target}",
    )


def recipe_name(report: Report, target: str = DEFAULT_TARGET) -> str:
    """Return the name of the chosen recipe."""
    recipe = chosen_section(report, target).recipe
    return recipe.name if recipe else "unknown"


def bundle_threads(report: Report, target: str = DEFAULT_TARGET) -> int:
    """Return the CPU threads that a bundle's figures were taken with.

    Raises:
        StorageError: the report does not say what it was measured on.
        UsageError: see `chosen_section`.
    """
    return reported_threads(report, chosen_section(report, target))


def own_threads(report: Report, target: str = DEFAULT_TARGET) -> int:
    """Return the CPU threads that the chosen way of running takes.

    Raises:
        StorageError, UsageError: see `bundle_threads`.
    """
    way = chosen_way(chosen_section(report, target))
    return bundle_threads(report, target) if way is None else way.num_threads


def require_this_machine(report: Report, hardware: Hardware, target: str = DEFAULT_TARGET) -> None:
    """Refuse a bundle whose artifact was chosen on another device.

    Raises:
        UsageError: the fingerprints differ.
    """
    made_on = chosen_section(report, target).hardware
    if made_on is None or made_on.fingerprint != hardware.fingerprint:
        raise UsageError(
            "the bundle's artifact was chosen on another machine",
            why=f"it was chosen on {made_on.model_name if made_on else 'an unknown one'}, "
            f"this is {hardware.model_name} (the fingerprints differ)",
            hint="export it here: another recipe may be the fastest",
        )


def bundle_plan(
    bundle: Path, report: Report, pad_token_id: int, target: str = DEFAULT_TARGET
) -> RunPlan:
    """Say how a bundle's artifact is run: its own file in the way that its report says.

    Raises:
        StorageError: the file is not the report's, or today's target would run it otherwise.
        UsageError: see `chosen_section`.
    """
    section = chosen_section(report, target)
    artifact = artifact_of(bundle, report, section)
    return plan_of(bundle, report, section, artifact, pad_token_id)


def artifact_bytes(entry: Path) -> int:
    """Return the size of an artifact: its entry file and the weights beside it."""
    weights = entry.with_suffix(".bin") if entry.suffix == ".xml" else Path(f"{entry}_data")
    return sum(path.stat().st_size for path in (entry, weights) if path.is_file())
