"""Folders that are built once, appear whole or not at all, and know what is in them.

A part is built beside its place under a lock, described file by file, and renamed. What a killed
build leaves behind is removed by the next one.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from targets.errors import StorageError
from targets.hashing import sha256_file

MANIFEST = "manifest.json"
_SCHEMA_VERSION = 1
_REMEDY = "free space there, or point EMBEDDING_EXPORTER_DEVICES to another folder"


def build_part(folder: Path, build: Callable[[Path], None]) -> bool:
    """Build a part unless it is there, every file as it was when it was built.

    Several processes that want the same part build it once: the others wait.

    Args:
        folder: where it shall be.
        build: fills the empty folder that it is given.

    Returns:
        Whether anything was built.

    Raises:
        StorageError: the folder cannot be written.
        Exception: whatever `build` raised; nothing stays behind.
    """
    from filelock import FileLock

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if not damage_of(folder, deep=True):
                return False
            _build(folder, build)
    except OSError as error:
        why = error.strerror or str(error)
        raise StorageError(f"{folder} cannot be built", why=why, hint=_REMEDY) from error
    return True


def _build(folder: Path, build: Callable[[Path], None]) -> None:
    staging = folder.with_name(f".{folder.name}.new")
    doomed = folder.with_name(f".{folder.name}.old")
    _remove(staging, doomed)
    try:
        staging.mkdir()
        build(staging)
        (staging / MANIFEST).write_text(json.dumps(_describe(staging)), "utf-8")
        if folder.exists():
            folder.rename(doomed)
        staging.rename(folder)
    finally:
        _remove(staging, doomed)


def _remove(*folders: Path) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def damage_of(folder: Path, *, deep: bool) -> str:
    """Say what is wrong with a part, "" if nothing.

    Args:
        folder: the part.
        deep: compare hashes, too; else only that every file is there in its size.
    """
    try:
        values = json.loads((folder / MANIFEST).read_text("utf-8"))
        files, links = _entries(values)
    except FileNotFoundError:
        return "it is not there"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"its {MANIFEST} is unreadable: {error}"
    return (
        next(_wrong_links(folder, links), "")
        or next(_wrong_sizes(folder, files), "")
        or (next(_wrong_hashes(folder, files), "") if deep else "")
    )


def _entries(values: dict[str, Any]) -> tuple[dict[str, tuple[int, str]], dict[str, str]]:
    if values["schema_version"] != _SCHEMA_VERSION:
        raise ValueError(f"schema_version {values['schema_version']}")
    files = {name: (int(size), str(sha256)) for name, (size, sha256) in values["files"].items()}
    return files, dict(values["links"])


def _wrong_links(folder: Path, links: dict[str, str]) -> Iterator[str]:
    for name, target in links.items():
        path = folder / name
        if not path.is_symlink() or str(path.readlink()) != target:
            yield f"{name} does not point to {target}"


def _wrong_sizes(folder: Path, files: dict[str, tuple[int, str]]) -> Iterator[str]:
    for name, (size_bytes, _) in files.items():
        try:
            found_bytes = (folder / name).lstat().st_size
        except OSError:
            yield f"{name} is missing"
        else:
            if found_bytes != size_bytes:
                yield f"{name} has {found_bytes} bytes, not {size_bytes}"


def _wrong_hashes(folder: Path, files: dict[str, tuple[int, str]]) -> Iterator[str]:
    names = list(files)
    for name, sha256 in zip(names, _hash_all([folder / name for name in names]), strict=True):
        if sha256 != files[name][1]:
            yield f"{name} has another content"


def _hash_all(paths: list[Path]) -> list[str]:
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as threads:
        return list(threads.map(sha256_file, paths))


def _describe(folder: Path) -> dict[str, Any]:
    """List every file with size and hash, and every symbolic link with where it points."""
    found = sorted(path for path in folder.rglob("*") if path.is_symlink() or path.is_file())
    links = [path for path in found if path.is_symlink()]
    files = [path for path in found if not path.is_symlink()]
    sizes_and_hashes = zip((path.stat().st_size for path in files), _hash_all(files), strict=True)
    return {
        "schema_version": _SCHEMA_VERSION,
        "files": dict(zip(_names(folder, files), map(list, sizes_and_hashes), strict=True)),
        "links": dict(zip(_names(folder, links), (str(p.readlink()) for p in links), strict=True)),
    }


def _names(folder: Path, paths: list[Path]) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in paths]
