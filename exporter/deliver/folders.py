"""Folders that appear whole or not at all: staging names, sweeping, swapping, listing."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import re
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath

from exporter.values import ShippedFile
from targets.errors import StorageError
from targets.hashing import sha256_file

ORPHAN_AGE_S = 24 * 3600
"""A staging folder untouched for so long has no living owner, whatever its pid says."""

_AT_FDCWD = -100  # linux/fcntl.h
_RENAME_EXCHANGE = 2  # linux/fs.h, since Linux 3.15
_STAGING = re.compile(r"(tmp|old)-(?P<pid>\d+)-(?P<machine>[0-9a-f]{8})-[0-9a-f]{8}\Z")


# ----------------------------------------------------------------------- staging names


@cache
def machine_token() -> str:
    """Name this machine and pid namespace: a pid means nothing anywhere else."""
    namespace = Path("/proc/self/ns/pid")
    inside = str(namespace.readlink()) if namespace.is_symlink() else ""
    return hashlib.sha256(f"{socket.gethostname()}\n{inside}".encode()).hexdigest()[:8]


def staging_name(prefix: str, kind: str = "tmp") -> str:
    """Return a fresh name that says who owns the folder; `kind` is "tmp" or "old"."""
    return f"{prefix}{kind}-{os.getpid()}-{machine_token()}-{secrets.token_hex(4)}"


def staging_folders(folder: Path, prefix: str, kind: str = "tmp") -> list[Path]:
    """Return the staging folders of `prefix` and `kind` in `folder`, oldest first."""
    start = f"{prefix}{kind}-"
    found = [
        path
        for path in folder.iterdir()
        if path.name.startswith(start) and _STAGING.match(path.name.removeprefix(prefix))
    ]
    return sorted(found, key=_modified_s)


def sweep(folder: Path, prefix: str) -> None:
    """Remove what processes that are gone left in `folder`."""
    for path in staging_folders(folder, prefix):
        if is_orphan(path, prefix):
            remove_tree(path)


def is_orphan(path: Path, prefix: str) -> bool:
    """Say whether nobody works in this staging folder any more."""
    match = _STAGING.match(path.name.removeprefix(prefix))
    if match is None:
        return False
    if match["machine"] == machine_token() and not _is_alive(int(match["pid"])):
        return True
    return time.time() - _modified_s(path) > ORPHAN_AGE_S


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _modified_s(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return time.time()


# ----------------------------------------------------------------------- whole folders


def remove_tree(path: Path) -> None:
    """Remove a folder or file if it is there; another process may be doing the same."""
    if path.is_symlink() or path.is_file():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


def exchange(first: Path, second: Path) -> bool:
    """Swap two folders in one step, so that nobody ever sees neither of them.

    Returns:
        False where the system or its file system has no such call; nothing changed then.

    Raises:
        OSError: the call exists and failed.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if not sys.platform.startswith("linux") or rename is None:
        return False
    paths = (os.fsencode(first), os.fsencode(second))
    if rename(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
        return False
    raise OSError(code, os.strerror(code), str(second))


def sync_tree(folder: Path) -> None:
    """Make a folder and all that is in it survive a power cut."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)


def sync(path: Path) -> None:
    """Flush one file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ------------------------------------------------------------------------------- files


def relative_files(folder: Path) -> Iterator[str]:
    """Yield the POSIX paths of all files below `folder`.

    Raises:
        StorageError: there is a symbolic link or something that is neither file nor folder.
    """
    for path in folder.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise StorageError(
                f"{path} is a link or a special file",
                why="a folder that is handed on holds plain files only",
                hint="put a copy of the file there",
            )
        if path.is_file():
            yield path.relative_to(folder).as_posix()


def describe_files(folder: Path, leave_out: frozenset[str] = frozenset()) -> list[ShippedFile]:
    """Return path, hash and size of every file below `folder`, sorted by path.

    Raises:
        StorageError: see `relative_files`.
    """
    return [
        ShippedFile(
            path=name,
            sha256=sha256_file(folder / name),
            size_bytes=(folder / name).stat().st_size,
        )
        for name in sorted(relative_files(folder))
        if name not in leave_out
    ]


def is_safe_relative(name: str) -> bool:
    """Say whether a path stays below the folder that it is relative to."""
    path = PurePosixPath(name)
    unusual = "\\" in name or "\0" in name or not path.parts
    return not unusual and not path.is_absolute() and ".." not in path.parts
