"""`exporter check BUNDLE`: is every file of a bundle what its manifest says?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from targets.errors import ExitCode


def check(bundle: Annotated[Path, typer.Argument(help="Bundle folder.")]) -> int:
    """Hash every file of a bundle again and compare with its manifest."""
    from exporter.deliver.bundle import verify_bundle

    problems = verify_bundle(bundle)
    for problem in problems:
        typer.echo(f"FAIL {problem}")
    if not problems:
        typer.echo(f"ok: every file of {bundle} is what its manifest says")
    return int(ExitCode.GATE_FAILED if problems else ExitCode.PASS)
