"""An adapter that cannot travel: it imports the project."""

from __future__ import annotations

from pathlib import Path

from targets.hashing import sha256_file


def open_session(model: Path, plan: object) -> tuple[str, object]:
    return sha256_file(model), plan
