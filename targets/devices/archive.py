"""Packing the runner into one file that any Python with numpy can start."""

from __future__ import annotations

import zipfile
from importlib.resources import files
from pathlib import Path

_MAIN = "from runner.main import main\n\nraise SystemExit(main())\n"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest time a zip can hold: equal sources, equal bytes


def build_runner_archive(path: Path) -> Path:
    """Write `runner.pyz`: the package `runner` and a `__main__.py`, bitwise reproducible.

    Args:
        path: file to write; replaced where it exists.

    Returns:
        The same path.
    """
    with zipfile.ZipFile(path, "w") as archive:
        for name, source in sorted(_sources().items()):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), source)
    return path


def _sources() -> dict[str, bytes]:
    package = {
        f"runner/{entry.name}": entry.read_bytes()
        for entry in files("targets.runner").iterdir()
        if entry.name.endswith(".py")
    }
    return package | {"__main__.py": _MAIN.encode()}
