"""The lock of emulated devices: what is downloaded, in which version, with which hash.

Every package is named by its path below the root of a Debian mirror, every wheel by its file
name, so that no host stands here. What comes from the network is believed by its hash alone.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any

from targets.errors import ConfigError
from targets.hashing import sha256_json

LOCK_VARIABLE = "EMBEDDING_EXPORTER_USERLAND_LOCK"
"""Names another lock file than the one that comes with this distribution."""

SCHEMA_VERSION = 1
DEBIAN_NAMES: Mapping[str, str] = {"aarch64": "arm64", "x86_64": "amd64"}
"""The kernel's names of architectures → Debian's."""

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_PLAIN_PATH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~:/-]*\Z")
_KEY_DIGITS = 16
_LAYOUT = 2
"""Part of every key: raised when files are unpacked in another way than before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedFile:
    """One file to download.

    Args:
        name: of the package or distribution.
        version: Debian's, or the wheel's.
        path: of a package: below the mirror's root; of a wheel: its file name.
        sha256: of the file.
        size_bytes: of the file.
    """

    name: str
    version: str
    path: str
    sha256: str
    size_bytes: int

    @property
    def file_name(self) -> str:
        """Last part of the path."""
        return PurePosixPath(self.path).name


@dataclass(frozen=True, slots=True, kw_only=True)
class UserlandLock:
    """Everything that emulated devices are made of, by Debian's names of architectures.

    Args:
        source: the file that was read; errors name it.
        suites: Debian's suites that the packages came from; read when the lock is renewed.
        qemu: the package `qemu-user`, by the architecture of the machine that emulates.
        packages: Debian's packages of a userland.
        wheels: Python wheels of a userland.
    """

    source: Path
    suites: Mapping[str, str]
    qemu: Mapping[str, LockedFile]
    packages: Mapping[str, tuple[LockedFile, ...]]
    wheels: Mapping[str, tuple[LockedFile, ...]]

    def qemu_key(self, host: str) -> str:
        """Hash of what the emulator is made of: sixteen hex digits."""
        return _key_of(self.qemu[host])

    def userland_key(self, architecture: str) -> str:
        """Hash of what a userland is made of: sixteen hex digits."""
        return _key_of(*self.packages[architecture], *self.wheels[architecture])


def _key_of(*parts: LockedFile) -> str:
    return sha256_json([_LAYOUT, *([part.name, part.sha256] for part in parts)])[:_KEY_DIGITS]


def lock_path() -> Path:
    """Return the lock file in use: the environment's, else the one that was installed with us."""
    named = os.environ.get(LOCK_VARIABLE)
    return Path(named) if named else Path(str(files("targets.devices") / "userland.lock.json"))


def read_lock(path: Path | None = None) -> UserlandLock:
    """Read a lock file; None: the one in use.

    Raises:
        ConfigError: it cannot be read, or something in it is missing or malformed.
    """
    source = path or lock_path()
    try:
        return _parse(json.loads(source.read_text("utf-8")), source)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"the lock of emulated devices {source} cannot be used",
            why=f"{type(error).__name__}: {error}",
            hint=f"`exporter devices lock FILE` writes a new one; {LOCK_VARIABLE}=FILE names it",
        ) from error


def write_lock(lock: UserlandLock, path: Path) -> None:
    """Write a lock file, the same bytes for the same content.

    Raises:
        OSError: it cannot be written.
    """
    values = {
        "schema_version": SCHEMA_VERSION,
        "suites": dict(lock.suites),
        "qemu": {host: asdict(one) for host, one in lock.qemu.items()},
        "userlands": {
            architecture: {
                "packages": [asdict(one) for one in lock.packages[architecture]],
                "wheels": [asdict(one) for one in lock.wheels[architecture]],
            }
            for architecture in lock.packages
        },
    }
    path.write_text(json.dumps(values, indent=1) + "\n", "utf-8")


def _parse(values: dict[str, Any], source: Path) -> UserlandLock:
    if values["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"schema_version is {values['schema_version']}, not {SCHEMA_VERSION}")
    userlands: dict[str, dict[str, Any]] = values["userlands"]
    return UserlandLock(
        source=source,
        suites=dict(values["suites"]),
        qemu={host: _file(one) for host, one in values["qemu"].items()},
        packages={name: _files(one["packages"]) for name, one in userlands.items()},
        wheels={name: _files(one["wheels"]) for name, one in userlands.items()},
    )


def _files(values: list[dict[str, Any]]) -> tuple[LockedFile, ...]:
    if not values:
        raise ValueError("a userland without packages or without wheels")
    return tuple(_file(one) for one in values)


def _file(values: dict[str, Any]) -> LockedFile:
    found = LockedFile(**values)
    if not _SHA256.match(found.sha256):
        raise ValueError(f"{found.name}: {found.sha256!r} is no SHA-256")
    if not _PLAIN_PATH.match(found.path) or ".." in PurePosixPath(found.path).parts:
        raise ValueError(f"{found.name}: {found.path!r} is no path below a mirror's root")
    return found
