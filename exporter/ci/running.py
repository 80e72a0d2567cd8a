"""Jobs, run: command by command, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from exporter.ci.baselines import baseline_file
from exporter.ci.fleet import Fleet, device_named
from exporter.ci.jobs import (
    Annotations,
    Command,
    Places,
    Stage,
    job_commands,
    matrix_command,
    rollout_commands,
    stages_of,
)
from exporter.deliver.archive import unpack_bundle
from exporter.deliver.manifest import MANIFEST
from exporter.deliver.storage import storage_errors
from targets.errors import ConfigError, ExitCode, ExporterError, StepError, worst

Say = Callable[[str], None]
"""Takes one line that the log should show."""


def run_job(fleet: Fleet, name: str, stage: Stage, places: Places, say: Say) -> ExitCode:
    """Run one device's job.

    Returns:
        `PASS` where its archive was made, whatever the verdict in it: that is the rollout's to
        judge. Otherwise the code of the command that failed.

    Raises:
        ConfigError: the fleet has no such device, or the device no such stage.
    """
    device = device_named(fleet, name)
    if stage not in stages_of(device):
        raise ConfigError(
            f"device {name} has nothing to {stage}",
            why="it has no finish_runner: its first job is its last",
            hint=f"ci/run-job {name}",
        )
    with storage_errors("cannot make room", places.root, remedy="give another --fleet"):
        (places.root / "prepared").mkdir(parents=True, exist_ok=True)
        for archive in places.made_by(name, stage):
            archive.unlink(missing_ok=True)  # a job that fails must not leave an earlier one's
    before = _manifest(places.bundle(name))
    for command in job_commands(fleet, name, stage, places):
        code = _run(command, say)
        was_made = _manifest(places.bundle(name)) != before
        if command.stops(code) or (code != ExitCode.PASS and not was_made):
            return code
    return ExitCode.PASS


def _manifest(bundle: Path) -> bytes | None:
    """Return what tells one bundle from the next; None where there is none."""
    file = bundle / MANIFEST
    return file.read_bytes() if file.is_file() else None


def run_rollout(
    fleet: Fleet, places: Places, baselines: Path, annotations: Annotations, say: Say
) -> ExitCode:
    """Judge the whole fleet by what its jobs left: matrix, report, comparisons, gate.

    Returns:
        The gate's code, or a worse one: of a comparison with a baseline, of a command or an
        archive that failed. A device that left nothing is for the gate to judge.

    Raises:
        StepError: no device left anything.
    """
    found = {name: _collect(name, places, say) for name in fleet.device}
    bundles = {name: bundle for name, (bundle, _) in found.items() if bundle is not None}
    if not bundles:
        raise StepError(
            f"no device of the fleet left a bundle in {places.root}",
            why="looked for " + ", ".join(str(places.archive(name)) for name in fleet.device),
            hint="run ci/run-job for each device first",
        )
    with storage_errors("cannot make a folder", places.rollout, remedy="give another --fleet"):
        places.rollout.mkdir(parents=True, exist_ok=True)
        places.matrix.unlink(missing_ok=True)  # an earlier one is about other artifacts
    codes = [code for _, code in found.values()]
    codes += _run_all([matrix_command(places, bundles)], say)
    commands = rollout_commands(
        fleet,
        places,
        bundles=bundles,
        baselines=_baselines(baselines, bundles, say),
        annotations=annotations,
        matrix=places.matrix if places.matrix.is_file() else None,
    )
    return worst(*codes, *_run_all(commands, say))


def _run_all(commands: Sequence[Command], say: Say) -> list[ExitCode]:
    """Run every command, and return the codes that are no verdict of another's."""
    ran = [(command, _run(command, say)) for command in commands]
    return [code for command, code in ran if command.stops(code)]


def _baselines(folder: Path, bundles: Mapping[str, Path], say: Say) -> dict[str, Path]:
    """Return each device's baseline of equal hardware; say where there is none."""
    places = {name: baseline_file(folder, name, bundle) for name, bundle in bundles.items()}
    for name, place in places.items():
        if place is None or not place.is_file():
            where = f" ({place})" if place else ""
            say(f"{name}: no baseline of its hardware{where}: nothing to compare with")
    return {name: place for name, place in places.items() if place and place.is_file()}


def _collect(name: str, places: Places, say: Say) -> tuple[Path | None, ExitCode]:
    """Unpack what a device's jobs left; what is missing or damaged is said, and counts."""
    archive, prepared = places.archive(name), places.prepared(name)
    source = archive if archive.is_file() or not prepared.is_file() else prepared
    if not source.is_file():
        say(f"{name}: MISSING, its jobs left no {archive}")
        return None, ExitCode.PASS  # the gate expects it
    try:
        unpack_bundle(source, places.bundle(name))
    except ExporterError as error:
        say(f"{name}: error [{error.code}]: {error}")
        return None, error.exit_code
    state = "prepared, not finished on its device" if source == prepared else "there"
    say(f"{name}: {state} ({source})")
    return places.bundle(name), ExitCode.PASS


def _run(command: Command, say: Say) -> ExitCode:
    """Run a command with this interpreter; it writes where this process writes."""
    say(f"+ {command}")
    code = _code_of((sys.executable, "-m", "exporter", *command.arguments))
    say(f"  exit code {int(code)}")
    return code


def _code_of(command: Sequence[str]) -> ExitCode:
    found = subprocess.run(command, check=False).returncode  # noqa: S603  # our own program
    if found in tuple(ExitCode):
        return ExitCode(found)
    return ExitCode.STEP_FAILED  # killed by a signal, out of memory
