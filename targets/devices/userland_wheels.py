"""Python wheels for another machine: downloaded by pip, compared with the lock, unpacked."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from targets.devices.userland_debian import RENEW_HINT, verify_download
from targets.devices.userland_lock import LockedFile
from targets.errors import DeviceError, NotInstalledError

PYTHON_VERSION = "3.11"
"""Of Debian 12, the userland's."""
_GLIBC_TAGS = ("manylinux_2_28", "manylinux_2_27", "manylinux2014")
"""Debian 12 has glibc 2.36; wheels for newer ones than these are not made yet."""
_KEPT_LINES = 6


def download_wheels(wheels: Sequence[LockedFile], machine: str, folder: Path) -> list[Path]:
    """Download wheels from the index that pip is set up for, and compare each with the lock.

    Args:
        wheels: what the lock names.
        machine: the kernel's name of the architecture.
        folder: where they go.

    Raises:
        NotInstalledError: this Python has no pip.
        DeviceError: the index does not have one of them.
        StorageError: a file is not what the lock says.
    """
    fetch_wheels([f"{one.name}=={one.version}" for one in wheels], machine, folder)
    for wheel in wheels:
        path = folder / wheel.file_name
        if not path.is_file():
            found = ", ".join(sorted(one.name for one in folder.glob("*.whl")))
            raise DeviceError(
                f"pip did not download {wheel.file_name}", why=f"but {found}", hint=RENEW_HINT
            )
        verify_download(wheel, path)
    return [folder / wheel.file_name for wheel in wheels]


def fetch_wheels(requirements: Sequence[str], machine: str, folder: Path) -> None:
    """Let pip download wheels, without what they depend on.

    Raises:
        NotInstalledError: this Python has no pip.
        DeviceError: pip failed.
    """
    if importlib.util.find_spec("pip") is None:
        raise NotInstalledError(
            "emulated devices take their Python packages through pip",
            why=f"{sys.executable} has none",
            hint=f"{sys.executable} -m ensurepip",
        )
    tags = [part for tag in _GLIBC_TAGS for part in ("--platform", f"{tag}_{machine}")]
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--no-deps", "--only-binary=:all:", "--dest", str(folder)),
        *("--python-version", PYTHON_VERSION, "--implementation", "cp", *tags, *requirements),
    ]
    done = subprocess.run(  # noqa: S603 - our own interpreter
        command, capture_output=True, text=True, env=dict(os.environ), check=False
    )
    if done.returncode != 0:
        raise DeviceError(
            f"pip cannot download {', '.join(requirements)} for {machine}",
            why="\n".join(done.stderr.strip().splitlines()[-_KEPT_LINES:]),
            hint=f"check the network and pip's index; {RENEW_HINT}",
        )


def unpack_wheel(wheel: Path, site_packages: Path) -> None:
    """Unpack a wheel the way it would be installed, without scripts."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site_packages)
    for library in site_packages.glob("*.data/*lib"):  # purelib, platlib: belong one floor up
        _merge(library, site_packages)


def _merge(source: Path, destination: Path) -> None:
    for path in sorted(source.rglob("*")):
        if path.is_file():
            place = destination / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            path.replace(place)
