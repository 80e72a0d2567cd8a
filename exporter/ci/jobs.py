"""The commands of each job, and where it leaves what."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from exporter.ci.fleet import Fleet, FleetDevice
from targets.errors import ExitCode

Stage = Literal["build", "finish"]
Annotations = Literal["none", "github", "gitlab"]

JUDGED = (ExitCode.PASS, ExitCode.GATE_FAILED, ExitCode.INCONCLUSIVE)
"""Codes that are a verdict: something was made, and the rollout's gate decides about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command of this program.

    Args:
        arguments: without the program's name.
        judges: its code is a verdict, with which a job that makes something goes on.
    """

    arguments: tuple[str, ...]
    judges: bool = False

    def stops(self, code: ExitCode) -> bool:
        """Say whether a code is a failure, and no verdict that is another command's to judge."""
        return code != ExitCode.PASS and not (self.judges and code in JUDGED)

    def __str__(self) -> str:
        return shlex.join(("exporter", *self.arguments))


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where the jobs of one fleet leave what they made; archives are what travels.

    Args:
        root: folder of all of it.
    """

    root: Path

    def bundle(self, device: str) -> Path:
        """Return a device's bundle, as made here or unpacked."""
        return self.root / "bundles" / device

    def archive(self, device: str) -> Path:
        """Return the archive of a device's finished bundle."""
        return self.root / f"{device}.tar.zst"

    def prepared(self, device: str) -> Path:
        """Return the archive of a bundle that another machine must finish."""
        return self.root / "prepared" / f"{device}.tar.zst"

    def made_by(self, device: str, stage: Stage) -> tuple[Path, ...]:
        """Return the archives that are out of date once a job begins."""
        finished, prepared = self.archive(device), self.prepared(device)
        return (finished,) if stage == "finish" else (finished, prepared)

    @property
    def rollout(self) -> Path:
        """The folder of the report about the whole fleet."""
        return self.root / "rollout"

    @property
    def matrix(self) -> Path:
        """The file of the matrix of all artifacts."""
        return self.rollout / "compatibility.json"


def stages_of(device: FleetDevice) -> tuple[Stage, ...]:
    """Return the stages that a device takes."""
    return ("build", "finish") if device.finish_runner else ("build",)


def job_commands(fleet: Fleet, name: str, stage: Stage, places: Places) -> tuple[Command, ...]:
    """Return the commands of one device's job, in their order."""
    device, bundle = fleet.device[name], places.bundle(name)
    if stage == "finish":
        prepared = places.bundle(f"{name}.prepared")
        archive = places.archive(name)
        return (
            _command("unpack", places.prepared(name), "-o", prepared),
            _command("build", prepared, "-o", bundle, judges=True),
            _command("pack", bundle, "-o", archive),
        )
    archive = places.prepared(name) if device.finish_runner else places.archive(name)
    is_emulated = device.device.startswith("emulated:")
    return (
        *((_command("devices", "setup", device.device, "--quiet"),) if is_emulated else ()),
        Command(arguments=tuple(_export(fleet, device, bundle)), judges=True),
        _command("pack", bundle, "-o", archive),
    )


def _export(fleet: Fleet, device: FleetDevice, bundle: Path) -> Iterator[str]:
    yield "export"
    for target in device.targets:
        yield from ("--target", target)
    common = {
        "--device": device.device,
        "--model": fleet.model,
        "--revision": fleet.revision,
        "--calibration": fleet.calibration,
        "--eval": fleet.eval,
        "--config": device.policy,
        "--output": bundle,
    }
    for flag, value in common.items():
        if value is not None:
            yield from (flag, str(value))
    yield "--quiet"
    yield from fleet.arguments
    yield from device.arguments


def matrix_command(places: Places, bundles: Mapping[str, Path]) -> Command:
    """Return the command that compares all artifacts with each other.

    What it cannot compare was not verified either: that is the gate's to judge or to waive.
    """
    # Emulated CPUs by this machine's kernels: their own have certified each bundle already.
    return _command(
        "compatibility",
        *bundles.values(),
        *("--simulate", "--quiet", "-o", places.matrix),
        judges=True,
    )


def rollout_commands(
    fleet: Fleet,
    places: Places,
    *,
    bundles: Mapping[str, Path],
    baselines: Mapping[str, Path],
    annotations: Annotations,
    matrix: Path | None = None,
) -> tuple[Command, ...]:
    """Return the commands that judge the whole fleet; each is run whatever the others say.

    Args:
        fleet: the devices, all of which are expected.
        places: where the fleet's files lie.
        bundles: device → its bundle, for those that are there.
        baselines: device → report of an earlier bundle on equal hardware.
        annotations: whose annotations the gate writes.
        matrix: what `matrix_command` left; None: nothing.
    """
    folders, rollout = list(bundles.values()), places.rollout
    expected = [part for pair in _expected(fleet) for part in ("--expect", pair)]
    policy = ["--policy", str(fleet.gate)] if fleet.gate else []
    shown = ["--compatibility", str(matrix)] if matrix else []
    return (
        _command("report", *folders, *expected, *policy, *shown, "-o", rollout / "report"),
        *(_command("compare", base, bundles[name]) for name, base in baselines.items()),
        _command(
            *("gate", *folders, *expected, *policy, "--annotations", annotations),
            *("--summary", rollout / "summary.md", "--junit", rollout / "junit.xml"),
        ),
    )


def _expected(fleet: Fleet) -> tuple[str, ...]:
    """Name every pair of target and device."""
    return tuple(f"{t}={one.device}" for one in fleet.device.values() for t in one.targets)


def _command(*arguments: str | Path, judges: bool = False) -> Command:
    return Command(arguments=tuple(str(part) for part in arguments), judges=judges)
