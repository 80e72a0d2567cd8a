"""`exporter sign BUNDLE --key FILE`: who made it, provable with a public key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from targets.errors import ExitCode


def sign(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder.")],
    key: Annotated[
        Path,
        typer.Option(
            "--key",
            help="Private elliptic-curve key in PEM; its password, if any, comes from "
            "EMBEDDING_EXPORTER_KEY_PASSWORD.",
        ),
    ],
) -> int:
    """Sign every file of a bundle with a key, by OpenSSF's model-signing."""
    from exporter.deliver.signature import sign_bundle

    typer.echo(f"signature {sign_bundle(bundle, key)}")
    return int(ExitCode.PASS)
