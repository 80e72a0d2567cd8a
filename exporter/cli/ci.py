"""`exporter ci`: the build jobs of a fleet of devices."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from targets.errors import ExitCode, UsageError

ci = typer.Typer(
    help="Build jobs of a fleet: one per device, and one that judges them all.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Devices = Annotated[
    Path,
    typer.Option("--devices", envvar="EMBEDDING_EXPORTER_CI_DEVICES", help="File of the devices."),
]
FleetFolder = Annotated[
    Path,
    typer.Option(
        "--fleet",
        envvar="EMBEDDING_EXPORTER_CI_FLEET",
        help="Folder for bundles, archives and the rollout's report.",
    ),
]
Baselines = Annotated[
    Path,
    typer.Option(
        "--baselines",
        envvar="EMBEDDING_EXPORTER_CI_BASELINES",
        help="Folder of accepted reports.",
    ),
]

_DEVICES = Path("ci/devices.toml")
_FLEET = Path("fleet")
_BASELINES = Path("ci/baselines")


def _one_of(name: str, given: str, choices: tuple[str, ...]) -> Any:  # noqa: ANN401  # a Literal
    if given not in choices:
        raise UsageError(f"--{name} {given} is unknown", why="it takes " + ", ".join(choices))
    return given


def _say(line: str) -> None:
    """Write to the log at once, so that it stands before what a command writes itself."""
    print(line, file=sys.stderr, flush=True)


@ci.command()
def matrix(
    devices: Devices = _DEVICES,
    output_format: Annotated[
        str,
        typer.Option(
            "--format",
            help="json; github: lines for $GITHUB_OUTPUT; gitlab: a child pipeline; names.",
        ),
    ] = "json",
) -> int:
    """Print the jobs of every device."""
    from exporter.ci import matrix as forms
    from exporter.ci.fleet import load_fleet

    known = {
        "json": forms.as_json,
        "github": forms.as_github,
        "gitlab": forms.as_gitlab,
        "names": forms.as_names,
    }
    write = known[_one_of("format", output_format, tuple(known))]
    print(write(forms.jobs_of(load_fleet(devices))))
    return int(ExitCode.PASS)


@ci.command("run")
def run_one(
    device: Annotated[str, typer.Argument(help="Name of a device of the fleet.")],
    stage: Annotated[
        str,
        typer.Option("--stage", help="build, or finish: on the device, what another prepared."),
    ] = "build",
    devices: Devices = _DEVICES,
    fleet: FleetFolder = _FLEET,
) -> int:
    """Run exactly one device's job; 0 where its archive was made, whatever the verdict in it."""
    from exporter.ci.fleet import load_fleet
    from exporter.ci.jobs import Places
    from exporter.ci.running import run_job

    known = _one_of("stage", stage, ("build", "finish"))
    return int(run_job(load_fleet(devices), device, known, Places(root=fleet), _say))


@ci.command()
def rollout(
    annotations: Annotated[
        str, typer.Option("--annotations", help="Of the gate: none, github or gitlab.")
    ] = "none",
    devices: Devices = _DEVICES,
    fleet: FleetFolder = _FLEET,
    baselines: Baselines = _BASELINES,
) -> int:
    """Judge all devices together: report, compatibility matrix, comparisons, gate."""
    from exporter.ci.fleet import load_fleet
    from exporter.ci.jobs import Places
    from exporter.ci.running import run_rollout

    known = _one_of("annotations", annotations, ("none", "github", "gitlab"))
    return int(run_rollout(load_fleet(devices), Places(root=fleet), baselines, known, _say))


@ci.command()
def accept(
    names: Annotated[list[str], typer.Argument(help="Devices whose bundles are accepted.")],
    devices: Devices = _DEVICES,
    fleet: FleetFolder = _FLEET,
    baselines: Baselines = _BASELINES,
) -> int:
    """Keep the reports of devices as what later ones on equal hardware are compared with."""
    from exporter.ci.baselines import accept as keep
    from exporter.ci.fleet import device_named, load_fleet
    from exporter.ci.jobs import Places

    known = load_fleet(devices)
    for name in names:
        device_named(known, name)
        print(f"baseline {keep(baselines, name, Places(root=fleet).bundle(name))}")
    return int(ExitCode.PASS)
