"""Files for a runner on an SSH device: lasting ones pushed once, a run's own each time."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from targets.devices.ssh_link import Link
from targets.errors import RunnerFailedError, StorageError
from targets.hashing import sha256_file, sha256_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """Files that lie in one folder there, named by the hash of what is in it.

    Args:
        paths: the files here, in the order of `entries`.
        entries: name, size in bytes and SHA-256 of each.
    """

    paths: tuple[Path, ...]
    entries: tuple[dict[str, Any], ...]

    @property
    def key(self) -> str:
        """The folder's name."""
        return sha256_json(self.entries)


def pack(path: Path, *, with_siblings: bool, parts: tuple[str, ...] = ()) -> Parcel:
    """Pack a file, with all visible files of its folder or those that are named.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    named = [path, *map(path.with_name, parts)]
    paths = tuple(sorted(_siblings(path) if with_siblings else named))
    return Parcel(paths=paths, entries=tuple(_describe(one) for one in paths))


def _siblings(path: Path) -> list[Path]:
    near = path.parent.iterdir()
    return [one for one in near if one.is_file() and (one == path or one.name[0] != ".")]


def _describe(path: Path) -> dict[str, Any]:
    stat = path.stat()
    digest = _sha256(path, stat.st_size, stat.st_mtime_ns)
    return {"name": path.name, "size_bytes": stat.st_size, "sha256": digest}


@functools.lru_cache(maxsize=256)
def _sha256(path: Path, size_bytes: int, mtime_ns: int) -> str:
    """Hash a file once as long as it stays what it is: runners of one artifact come and go."""
    return sha256_file(path)


class RemoteFiles:
    """The way of one runner's files over a link (`targets.devices.files.RunnerFiles`).

    Args:
        link: an open connection; closed with the files.
        scratch: this machine's folder for what comes back.
    """

    def __init__(self, link: Link, scratch: Path) -> None:
        self._link = link
        self._scratch = scratch
        self._put: dict[str, str] = {}

    def install(
        self, path: Path, *, with_siblings: bool = False, parts: tuple[str, ...] = ()
    ) -> str:
        """Push a file, unless the device has it intact.

        Raises:
            RunnerFailedError: there is no such file here.
            StorageError: it cannot be read here or written there.
            RunnerCrashedError: the connection was lost.
        """
        try:
            parcel = pack(path.absolute(), with_siblings=with_siblings, parts=parts)
        except FileNotFoundError as error:
            raise RunnerFailedError(f"{self._name}: nothing to load", why=str(error)) from error
        except OSError as error:
            raise StorageError(f"{path} cannot be read", why=str(error)) from error
        wanted: dict[str, Any] = {"key": parcel.key, "files": parcel.entries}
        found = self._link.ask("have", **wanted)["path"]
        folder = found or self._link.ask("install", parcel.paths, **wanted)["path"]
        return f"{folder}/{path.name}"

    def put(self, path: Path) -> str:
        """Push a file of this run once.

        Raises:
            StorageError: it cannot be written there.
            RunnerCrashedError: the connection was lost.
        """
        if path.name not in self._put:
            entry = _describe(path)
            self._put[path.name] = str(self._link.ask("put", (path,), **entry)["path"])
        return self._put[path.name]

    def place(self, name: str) -> str:
        """Name a file in the run's folder there."""
        return f"{self._link.scratch}/{name}"

    def fetch(self, place: str) -> Path:
        """Bring a result into the scratch folder here; there it is removed.

        Raises:
            StorageError: it cannot be read there or written here.
            RunnerCrashedError: the connection was lost.
        """
        name = place.rpartition("/")[2]
        data = self._link.ask("fetch", name=name).get("bytes", b"")
        path = self._scratch / name
        try:
            path.write_bytes(data)
        except OSError as error:
            raise StorageError(f"{path} cannot be written", why=str(error)) from error
        return path

    def close(self) -> None:
        """Have the run's folder there removed and hang up."""
        self._link.close()

    @property
    def _name(self) -> str:
        return self._link.address.text
