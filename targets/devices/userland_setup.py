"""Building what an emulated device is made of: download, verify, unpack, run once."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from targets.contract import Progress, no_progress
from targets.devices.userland import (
    Userland,
    host_name,
    locate_userland,
    qemu_member,
    upstream_version,
)
from targets.devices.userland_debian import (
    download_packages,
    make_links_relative,
    unpack_package,
)
from targets.devices.userland_lock import DEBIAN_NAMES, UserlandLock, read_lock
from targets.devices.userland_parts import build_part
from targets.devices.userland_wheels import download_wheels, unpack_wheel
from targets.errors import RunnerFailedError

_SMOKE = "import argparse, json, queue, zipfile, numpy, onnxruntime; print('ready')"
_SMOKE_CPUS: Mapping[str, str] = {"aarch64": "neoverse-n1", "x86_64": "Haswell"}
_KEPT_LINES = 8

Step = Callable[[str], AbstractContextManager[Progress]]
"""Announces a piece of work by its title; what it yields takes the progress."""


@contextmanager
def silent_step(title: str) -> Iterator[Progress]:
    """Announce nothing."""
    yield no_progress


def download_bytes(
    machine: str, *, root: Path | None = None, lock: UserlandLock | None = None
) -> int:
    """Say how much `set_up_userland` would download, in bytes."""
    locked = lock or read_lock()
    userland = locate_userland(machine, root=root, lock=locked)
    architecture = DEBIAN_NAMES[machine]
    wanted = (*locked.packages[architecture], *locked.wheels[architecture])
    files = (() if userland.folder.is_dir() else wanted) + (
        () if userland.emulator.is_dir() else (locked.qemu[host_name(locked)],)
    )
    return sum(one.size_bytes for one in files)


def set_up_userland(
    machine: str,
    *,
    root: Path | None = None,
    lock: UserlandLock | None = None,
    step: Step = silent_step,
) -> Userland:
    """Download, verify and unpack what is missing or damaged; nothing where all is sound.

    Raises:
        NotInstalledError: this machine has no apt, dpkg or pip, or the lock nothing for it.
        DeviceError: something cannot be downloaded.
        RunnerFailedError: the userland does not run.
        StorageError: a download is not what the lock says, or the folder cannot be written.
    """
    locked = lock or read_lock()
    userland = locate_userland(machine, root=root, lock=locked)
    build_part(userland.emulator, partial(_build_qemu, locked, step))
    build_part(userland.folder, partial(_build_userland, userland, locked, step))
    return userland


def _build_qemu(lock: UserlandLock, step: Step, folder: Path) -> None:
    package = lock.qemu[host_name(lock)]
    title = f"QEMU {upstream_version(package.version)}, {_megabytes(package.size_bytes)}"
    with tempfile.TemporaryDirectory(prefix="qemu-") as downloads, step(title) as progress:
        (archive,) = download_packages((package,), Path(downloads), progress)
        unpack_package(archive, folder, map(qemu_member, DEBIAN_NAMES))


def _build_userland(userland: Userland, lock: UserlandLock, step: Step, folder: Path) -> None:
    architecture = DEBIAN_NAMES[userland.machine]
    packages, wheels = lock.packages[architecture], lock.wheels[architecture]
    inside = replace(userland, folder=folder)
    with tempfile.TemporaryDirectory(prefix="userland-") as downloads:
        size = _megabytes(sum(one.size_bytes for one in packages))
        with step(f"Debian packages for {architecture}, {size}") as progress:
            _merge_usr(inside.sysroot)
            for archive in download_packages(packages, Path(downloads), progress):
                unpack_package(archive, inside.sysroot)
            make_links_relative(inside.sysroot)
        size = _megabytes(sum(one.size_bytes for one in wheels))
        with step(f"Python wheels for {architecture}, {size}"):
            for wheel in download_wheels(wheels, userland.machine, Path(downloads)):
                unpack_wheel(wheel, inside.site_packages)
    with step(f"first run on {architecture}"):
        _run_once(inside)


def _merge_usr(sysroot: Path) -> None:
    """Let every name of a library find the userland's own.

    QEMU looks a path up in the sysroot and then on the host. The loader tries /lib before
    /usr/lib, and Debian 12's packages use either: apart, a host of the same architecture would
    lend its libraries. So would its list of libraries, were there none here.
    """
    for name in ("bin", "lib", "lib64", "sbin"):
        (sysroot / "usr" / name).mkdir(parents=True)
        (sysroot / name).symlink_to(f"usr/{name}")
    (sysroot / "etc").mkdir()
    (sysroot / "etc" / "ld.so.cache").touch()


def _run_once(userland: Userland) -> None:
    """Prove that everything can be imported, and leave the bytecode of it for later runs."""
    environment = userland.environment()
    del environment["PYTHONDONTWRITEBYTECODE"]
    done = subprocess.run(  # noqa: S603 - what was just verified and unpacked
        [*userland.python(_SMOKE_CPUS[userland.machine]), "-c", _SMOKE],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if done.stdout.strip() != "ready":
        raise RunnerFailedError(
            f"the userland for {userland.machine} does not run under QEMU {userland.qemu_release}",
            why="\n".join(done.stderr.strip().splitlines()[-_KEPT_LINES:]) or "it said nothing",
        )


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.0f} MB"
