"""`exporter targets [NAME]`: what can be exported to, and whether it works here."""

from __future__ import annotations

from typing import Annotated

import typer

from targets.errors import ExitCode


def targets(
    name: Annotated[str | None, typer.Argument(help="One target, in detail.")] = None,
    device: Annotated[str, typer.Option("--device", help="Where to look.")] = "local",
) -> int:
    """List the targets and what this device supports."""
    from exporter.cli.output import print_target, print_targets
    from targets.registry import describe_targets, load_target, open_device

    where = open_device(device)
    if name is None:
        print_targets(describe_targets(where))
    else:
        print_target(load_target(name), where)
    return int(ExitCode.PASS)
