"""`exporter pack` and `exporter unpack`: a bundle as one file, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from targets.errors import ExitCode


def pack(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Archive to write: .tar.gz or .tar.zst.")
    ],
) -> int:
    """Write a bundle as one archive: the same bundle, the same bytes."""
    from exporter.deliver.archive import pack_bundle

    archive = pack_bundle(bundle, output)
    typer.echo(f"archive {archive.path}   {archive.size_bytes:,} bytes   sha256 {archive.sha256}")
    return int(ExitCode.PASS)


def unpack(
    archive: Annotated[Path, typer.Argument(help="Archive that `exporter pack` wrote.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Bundle folder to make.")],
) -> int:
    """Unpack an archive and check every hash before the bundle takes its place."""
    from exporter.deliver.archive import unpack_bundle

    manifest = unpack_bundle(archive, output, note=lambda text: typer.echo(text, err=True))
    typer.echo(f"bundle {output}   {len(manifest.files)} files, each what its manifest says")
    return int(ExitCode.PASS)
