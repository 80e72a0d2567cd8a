"""The calibration texts that ship with the project, checked against their manifest."""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources.abc import Traversable
from pathlib import Path

from targets.errors import TextsError
from targets.hashing import sha256_file

_PACKAGE = "calibration_data"
_TEXTS_FILE = "texts.jsonl"
_MANIFEST_FILE = "manifest.json"


@contextmanager
def builtin_texts_file(folder: Traversable | None = None) -> Iterator[Path]:
    """Give the file of built-in calibration texts (JSON lines: id, kind, language, text).

    Args:
        folder: where texts and manifest lie; None: the installed package.

    Raises:
        TextsError: if a file is missing or the texts are not those of the manifest.
    """
    folder = _installed_folder() if folder is None else folder
    for name in (_TEXTS_FILE, _MANIFEST_FILE):
        if not (folder / name).is_file():
            raise _damaged(f"{_PACKAGE}/{name} is missing")
    with importlib.resources.as_file(folder / _TEXTS_FILE) as path:
        found = sha256_file(path)
        promised = _promised_sha256((folder / _MANIFEST_FILE).read_bytes())
        if found != promised:
            raise _damaged(f"{_TEXTS_FILE} has sha256 {found}, its manifest says {promised}")
        yield path


def _installed_folder() -> Traversable:
    try:
        return importlib.resources.files(_PACKAGE)
    except ModuleNotFoundError as error:
        raise _damaged(f"the package {_PACKAGE} is missing") from error


def _promised_sha256(manifest: bytes) -> str:
    try:
        content = json.loads(manifest)
    except ValueError as error:
        raise _damaged(f"{_MANIFEST_FILE} is not JSON: {error}") from error
    promised = content.get("sha256") if isinstance(content, dict) else None
    if not isinstance(promised, str):
        raise _damaged(f'{_MANIFEST_FILE} has no "sha256"')
    return promised


def _damaged(why: str) -> TextsError:
    return TextsError(
        "the built-in calibration texts cannot be used",
        why=why,
        hint="install embedding-exporter again, or give texts of your own with --calibration",
    )
