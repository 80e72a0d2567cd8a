"""Files there: taken in whole and checked, found again by hash, removed when nobody needs them."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from .process import is_running

CHUNK_BYTES = 1 << 18
RUN, INCOMING = ".run-", ".incoming-"
KEPT_S = 30 * 24 * 3600.0
KEPT_BYTES = 4 << 30
_IN_USE_S = 3600.0
_STRAY_S = 24 * 3600.0
_KEY_LENGTH = 64


class FarError(Exception):
    """A request could not be done; answered by name.

    Args:
        kind: "storage" or "damaged".
        message: one line.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Payload:
    """The raw bytes behind a request; what an error leaves unread is read before the answer."""

    def __init__(self, stream: BinaryIO, size_bytes: int) -> None:
        self._stream = stream
        self._left_bytes = size_bytes

    def chunks(self, size_bytes: int) -> Iterator[bytes]:
        """Yield the next bytes. Raises: EOFError: the caller is gone."""
        while size_bytes:
            chunk = self._stream.read(min(size_bytes, CHUNK_BYTES))
            if not chunk:
                raise EOFError
            size_bytes -= len(chunk)
            self._left_bytes -= len(chunk)
            yield chunk

    def drain(self) -> None:
        """Skip what is left."""
        for _ in self.chunks(self._left_bytes):
            pass


def receive(payload: Payload, path: Path, expected: Mapping[str, Any]) -> None:
    """Write one file of a payload and check it.

    Raises:
        FarError: "damaged" if size or SHA-256 differ from what was announced.
        OSError: it cannot be written.
    """
    digest = hashlib.sha256()
    with path.open("wb") as stream:
        for chunk in payload.chunks(expected["size_bytes"]):
            digest.update(chunk)
            stream.write(chunk)
    if digest.hexdigest() != expected["sha256"] or path.stat().st_size != expected["size_bytes"]:
        raise FarError("damaged", f"{path.name} arrived damaged")


def damaged_files(folder: Path, expected: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name the files that are missing, differ in size or SHA-256, or do not belong there."""
    damaged = [one["name"] for one in expected if not _is_intact(folder / one["name"], one)]
    strangers = {path.name for path in folder.iterdir()} - {one["name"] for one in expected}
    return damaged + sorted(strangers)


def _is_intact(path: Path, expected: Mapping[str, Any]) -> bool:
    digest = hashlib.sha256()
    try:
        if path.stat().st_size != expected["size_bytes"]:
            return False
        with path.open("rb") as stream:
            for chunk in iter(lambda: stream.read(CHUNK_BYTES), b""):
                digest.update(chunk)
    except OSError:
        return False
    return digest.hexdigest() == str(expected["sha256"])


def swap_in(aside: Path, folder: Path) -> None:
    """Give a complete folder its name; one that somebody else pushed meanwhile is the same."""
    try:
        aside.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def storage_error(folder: Path, error: OSError) -> FarError:
    """Say what a file system refused, and how much room it has."""
    free_mb = shutil.disk_usage(folder).free / 1e6
    return FarError("storage", f"{error.strerror or error} in {folder} ({free_mb:.1f} MB free)")


# ------------------------------------------------------------------------------ folders


def make_folder(parent: Path, kind: str) -> Path:
    """Make a folder that names its owner: this process on this machine."""
    return Path(tempfile.mkdtemp(prefix=f"{kind}{os.getpid()}-{_machine_name()}-", dir=parent))


def _machine_name() -> str:
    """Name the machine without a dash, which parts the names of folders."""
    return platform.node().replace("-", "_").replace("/", "_") or "unnamed"


def remove_strays(folder: Path) -> None:
    """Remove what killed runs and pushes left."""
    for path in folder.iterdir():
        if path.name.startswith((RUN, INCOMING)) and _is_stray(path):
            shutil.rmtree(path, ignore_errors=True)


def _is_stray(path: Path) -> bool:
    """Say whether a temporary folder's owner is gone; home folders may be shared by machines."""
    _, pid, machine, _ = (*path.name.split("-", 3), "", "", "")[:4]
    if machine == _machine_name() and pid.isdigit():
        return not is_running(int(pid))
    return _age_s(path) > _STRAY_S


def prune(folder: Path) -> None:
    """Remove lasting files that nobody asked for in a month, or that are too many."""
    total_bytes = 0
    for path in sorted(filter(_is_lasting, folder.iterdir()), key=_age_s):
        total_bytes += _size_bytes(path)
        full = total_bytes > KEPT_BYTES and _age_s(path) > _IN_USE_S
        if full or _age_s(path) > KEPT_S:
            shutil.rmtree(path, ignore_errors=True)


def _is_lasting(path: Path) -> bool:
    """Say whether a folder's name is a SHA-256: only such ones are ours to remove."""
    is_key = len(path.name) == _KEY_LENGTH and set(path.name) <= set("0123456789abcdef")
    return is_key and path.is_dir()


def _age_s(path: Path) -> float:
    """Seconds since a folder was last used; 0 where it has just gone."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def _size_bytes(folder: Path) -> int:
    try:
        return sum(one.stat().st_size for one in folder.iterdir())
    except OSError:
        return 0
