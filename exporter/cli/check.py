"""`exporter check BUNDLE`: is every file of a bundle what its manifest says, and who signed it?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from targets.errors import ExitCode


def check(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder or archive.")],
    public_key: Annotated[
        Path | None,
        typer.Option("--public-key", help="PEM file: the bundle must be signed with its key."),
    ] = None,
) -> int:
    """Hash every file of a bundle again, compare with its manifest, verify the signature."""
    from exporter.deliver.archive import opened_bundle
    from exporter.deliver.manifest import verify_bundle

    with opened_bundle(bundle, intact=False) as folder:
        problems = [str(problem) for problem in verify_bundle(folder)]
        signature, problem = _signature(folder, public_key)
    if problem:
        problems.append(problem)
    for problem in problems:
        typer.echo(f"FAIL {problem}")
    if not problems:
        typer.echo(f"ok: every file of {bundle} is what its manifest says; {signature}")
    return int(ExitCode.GATE_FAILED if problems else ExitCode.PASS)


def _signature(folder: Path, public_key: Path | None) -> tuple[str, str]:
    """Return what is said of a good signature, and what is wrong with it."""
    from exporter.deliver.manifest import SIGNATURE
    from exporter.deliver.signature import signature_problem

    if public_key is not None:
        return f"signed with the key of {public_key}", signature_problem(folder, public_key)
    if (folder / SIGNATURE).exists():
        return "its signature was not checked (--public-key FILE)", ""
    return "it is not signed", ""
