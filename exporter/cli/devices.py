"""`exporter devices`: where artifacts can run, and setting up what is not there yet."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from exporter.cli.options import JsonOption, QuietOption
from targets.errors import ExitCode, UsageError

devices = typer.Typer(
    help="List the devices; set up emulated ones.",
    invoke_without_command=True,
    rich_markup_mode=None,
)


@devices.callback()
def list_devices(
    context: typer.Context,
    as_json: JsonOption = False,
) -> int:
    """List every device, and what it would take to use it."""
    if context.invoked_subcommand is None:
        _print_devices(as_json=as_json)
    return int(ExitCode.PASS)


@devices.command()
def setup(
    names: Annotated[list[str], typer.Argument(help="emulated:CPU, one or more.")],
    quiet: QuietOption = False,
) -> int:
    """Download, verify and unpack what emulated devices need, once, into the user's cache."""
    from exporter.cli.progress import make_reporter
    from targets.registry import set_up_device

    for name in names:
        with make_reporter(quiet=quiet) as reporter:
            folder = set_up_device(name, reporter.step)
        where = "needs no set-up" if folder is None else f"is ready in {folder}"
        print(f"{name} {where}")
    return int(ExitCode.PASS)


@devices.command()
def lock(
    path: Annotated[Path, typer.Argument(help="Lock file to write.")],
    quiet: QuietOption = False,
) -> int:
    """Write a lock of the versions that emulated devices would be made of today."""
    from exporter.cli.progress import make_reporter
    from targets.registry import renew_device_lock

    if path.is_dir():
        raise UsageError(f"{path} is a folder", hint=f"name a file: {path / 'userland.lock.json'}")
    with make_reporter(quiet=quiet) as reporter:
        renew_device_lock(path, reporter.step)
    print(f"lock {path}   in use with EMBEDDING_EXPORTER_USERLAND_LOCK={path.absolute()}")
    return int(ExitCode.PASS)


def _print_devices(*, as_json: bool) -> None:
    from targets.registry import describe_devices

    rows = describe_devices()
    if as_json:
        from exporter.cli.output import print_json

        return print_json([asdict(row) for row in rows])
    from rich.console import Console
    from rich.table import Column, Table

    table = Table(Column("device", no_wrap=True), "hardware", "latency", "what it takes")
    for row in rows:
        table.add_row(row.name, row.hardware, row.latency, row.state)
    return Console().print(table)
