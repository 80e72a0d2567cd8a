"""Debian packages without installing them: from the mirror that this machine's apt uses.

apt's own helper downloads, so that proxies and certificates are those of the machine; dpkg-deb
unpacks into a folder. Nothing of the machine's package state is touched and no rights are needed.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

from targets.contract import Progress, no_progress
from targets.devices.userland_lock import LOCK_VARIABLE, LockedFile
from targets.errors import DeviceError, NotInstalledError, StorageError
from targets.hashing import sha256_file

APT_HELPER = Path("/usr/lib/apt/apt-helper")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
RENEW_HINT = (
    f"`exporter devices lock FILE` writes a lock of what there is now; {LOCK_VARIABLE}=FILE uses it"
)
_ELSEWHERE = "a Debian 12 or 13 machine or container has it; a real device needs none (ssh://)"
_IN_RELEASE = re.compile(r"'(?P<root>[^']+/)dists/(?P<suite>[^']+)/InRelease'")
_KEPT_LINES = 6


def debian_mirrors() -> tuple[str, ...]:
    """Return the roots of the mirrors of Debian that this machine's apt is set up for.

    Other repositories may carry Debian's suite names, too: what comes from any of them is
    believed by hash or signature only.

    Raises:
        NotInstalledError: this is not a Debian machine with apt, or apt has no such source.
    """
    release = _os_release()
    if release.get("ID") != "debian" or not APT_HELPER.is_file() or not shutil.which("dpkg-deb"):
        name = release.get("PRETTY_NAME", platform.system())
        raise NotInstalledError(
            "emulated devices are made of Debian packages",
            why=f"this is {name}, without Debian's apt and dpkg",
            hint=_ELSEWHERE,
        )
    asked = run_tool(("apt-get", "update", "--print-uris"))
    found = [match for line in asked.splitlines() if (match := _IN_RELEASE.match(line))]
    mirrors = [one["root"] for one in found if one["suite"] == release.get("VERSION_CODENAME")]
    if not mirrors:
        raise NotInstalledError(
            f"apt knows no mirror of Debian {release.get('VERSION_CODENAME', '')}",
            why="`apt-get update --print-uris` lists none",
            hint="add Debian's main repository to apt's sources",
        )
    return tuple(dict.fromkeys(mirrors))


def _os_release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def download_packages(
    packages: Sequence[LockedFile], folder: Path, progress: Progress = no_progress
) -> list[Path]:
    """Download packages and compare each with the lock.

    Returns:
        The files in `folder`, in the order of `packages`.

    Raises:
        NotInstalledError: no apt, or no mirror is configured.
        DeviceError: no mirror has one of them, or none can be reached.
        StorageError: a file is not what the lock says.
    """
    failure: DeviceError | None = None
    for mirror in debian_mirrors():
        try:
            paths = _download(mirror, packages, folder, progress)
        except DeviceError as error:
            failure = failure or error
        else:
            for package, path in zip(packages, paths, strict=True):
                verify_download(package, path)
            return paths
    raise failure or DeviceError("nothing was downloaded")


def _download(
    mirror: str, packages: Sequence[LockedFile], folder: Path, progress: Progress
) -> list[Path]:
    paths = [folder / package.file_name for package in packages]
    pairs = zip(packages, map(str, paths), strict=True)
    wanted = [part for package, path in pairs for part in (mirror + package.path, path)]
    lines: list[str] = []
    for line in _stream_tool((str(APT_HELPER), "download-file", *wanted), lines):
        if line.startswith("Get:"):
            progress(sum(one.startswith("Get:") for one in lines), len(packages))
    missing = [one.name for one, path in zip(packages, paths, strict=True) if not path.is_file()]
    if missing:
        raise DeviceError(
            f"{', '.join(missing)}: not downloaded",
            why="\n".join(_complaints(lines)),
            hint=f"check the network; where the mirror has moved on, {RENEW_HINT}",
        )
    return paths


def verify_download(locked: LockedFile, path: Path) -> None:
    """Compare a downloaded file with the lock.

    Raises:
        StorageError: it is another file.
    """
    found = sha256_file(path)
    if found != locked.sha256:
        raise StorageError(
            f"{locked.file_name} is not the file that the lock of emulated devices names",
            why=f"its SHA-256 is {found}, the lock says {locked.sha256}",
            hint=f"try again; if it stays so, ask who publishes it before you trust it: "
            f"{RENEW_HINT}",
        )


def unpack_package(package: Path, folder: Path, members: Iterable[str] = ()) -> None:
    """Unpack a package's files below `folder`; no script of the package is run.

    Folders that are symbolic links there stay what they are, unlike with `dpkg-deb -x`.

    Args:
        package: the `.deb` file.
        folder: an existing folder.
        members: only these files, named like "usr/bin/env"; none: all.

    Raises:
        DeviceError: the package is damaged, or a member is not in it.
    """
    names = (f"./{name}" for name in members)
    unpack = ("tar", "--keep-directory-symlink", "-xf", "-", "-C", str(folder), *names)
    command = ["dpkg-deb", "--fsys-tarfile", str(package)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=_environment()) as source:  # noqa: S603
        run_tool(unpack, stdin=source.stdout)


def make_links_relative(sysroot: Path) -> None:
    """Let absolute symbolic links stay inside the sysroot instead of pointing into the host."""
    for folder, names, files in os.walk(sysroot):
        for path in (Path(folder, name) for name in (*names, *files)):
            if path.is_symlink() and path.readlink().is_absolute():
                inside = sysroot / path.readlink().relative_to("/")
                path.unlink()
                path.symlink_to(os.path.relpath(inside, path.parent))


def run_tool(command: Sequence[str], *, stdin: IO[bytes] | None = None) -> str:
    """Run one of Debian's tools in plain English and return what it printed.

    Raises:
        DeviceError: it failed; carries its last lines of stderr.
    """
    done = subprocess.run(  # noqa: S603 - fixed tools, paths of our own
        list(command), stdin=stdin, capture_output=True, env=_environment(), check=False
    )
    if done.returncode != 0:
        last = done.stderr.decode(errors="replace").splitlines()[-_KEPT_LINES:]
        raise DeviceError(f"{Path(command[0]).name} {command[1]} failed", why="\n".join(last))
    return done.stdout.decode(errors="replace")


def _stream_tool(command: Sequence[str], lines: list[str]) -> Iterator[str]:
    """Yield what a tool prints while it runs, and keep it in `lines`; the exit code is not read."""
    with subprocess.Popen(  # noqa: S603 - fixed tool, paths of our own
        list(command),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=_environment(),
        text=True,
        errors="replace",
    ) as process:
        try:
            for line in process.stdout or ():
                lines.append(line.rstrip())
                yield lines[-1]
        finally:
            process.kill()


def _complaints(lines: Sequence[str]) -> list[str]:
    said = [line for line in lines if line.startswith("E: ") and "Download Failed" not in line]
    return (said or list(lines))[-_KEPT_LINES:]


def _environment() -> dict[str, str]:
    return os.environ | {"LC_ALL": "C.UTF-8"}
