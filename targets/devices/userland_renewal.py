"""Writing the lock anew: what Debian's mirror and Python's index have now, with its hashes.

The versions of packages come from an apt with folders of its own, which believes signed indexes
only (Debian's archive keys) and knows nothing of the packages that this machine has. Wheels are
those that this program's own Python has, so that artifacts run where they are emulated in the
version that they were built with.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from targets.devices.userland_debian import KEYRING, debian_mirrors, run_tool
from targets.devices.userland_lock import DEBIAN_NAMES, LockedFile, UserlandLock, write_lock
from targets.devices.userland_setup import Step, silent_step
from targets.devices.userland_wheels import fetch_wheels
from targets.errors import DeviceError, NotInstalledError, StorageError
from targets.hashing import sha256_file

SUITES = {"userland": "bookworm", "qemu": "bookworm-backports"}
"""Debian 12's main suite got its last point release in 2026: its versions stay where they are."""
PACKAGES = ("python3.11-minimal", "libpython3.11-stdlib", "libstdc++6", "libgomp1")
"""What Python, numpy and ONNX Runtime are linked with, besides what these depend on."""
QEMU = "qemu-user"
DISTRIBUTIONS = ("numpy", "onnxruntime")

_PRIVATE_APT = """\
APT::Architecture "{architecture}";
#clear APT::Architectures;
APT::Architectures {{ "{architecture}"; }};
APT::Install-Recommends "0";
APT::Update::Error-Mode "any";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
Dir::State "{root}/state";
Dir::State::Lists "{root}/state/lists";
Dir::State::status "{root}/status";
Dir::Cache "{root}/cache";
Dir::Etc::sourcelist "{root}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
"""
_URI_FILE = re.compile(r"'[^']+' (?P<name>[^_ ]+)_[^ ]+\.deb ")


def renew_lock(output: Path, step: Step = silent_step) -> UserlandLock:
    """Write a lock of the current versions.

    Args:
        output: the lock file to write.
        step: told what is done.

    Raises:
        NotInstalledError: no apt, no pip, no Debian keyring, or no numpy or onnxruntime here.
        DeviceError: a mirror or index cannot be reached, or lacks a package.
        StorageError: `output` cannot be written.
    """
    if not KEYRING.is_file():
        raise NotInstalledError(
            "signed package lists cannot be checked",
            why=f"there is no {KEYRING}",
            hint="apt-get install debian-archive-keyring",
        )
    packages, wheels, qemu = {}, {}, {}
    for machine, architecture in DEBIAN_NAMES.items():
        with step(f"Debian's lists for {architecture}"), private_apt(architecture) as apt:
            packages[architecture] = apt.lock(apt.closure(PACKAGES, SUITES["userland"]))
            (qemu[architecture],) = apt.lock([f"{QEMU}/{SUITES['qemu']}"])
        with step(f"Python wheels for {architecture}"):
            wheels[architecture] = lock_wheels(machine)
    lock = UserlandLock(source=output, suites=SUITES, qemu=qemu, packages=packages, wheels=wheels)
    try:
        write_lock(lock, output)
    except OSError as error:
        raise StorageError(f"{output} cannot be written", why=str(error)) from error
    return lock


class PrivateApt:
    """An apt for one architecture that shares nothing with the machine's but its network."""

    def __init__(self, config: Path) -> None:
        self._config = str(config)

    def update(self) -> None:
        """Fetch the package lists; unsigned or wrongly signed ones are refused."""
        run_tool(("apt-get", "-c", self._config, "update"))

    def closure(self, names: Sequence[str], suite: str) -> list[str]:
        """Return the names of packages with everything that they depend on."""
        asked = ("install", "--print-uris", "-qq", "-y", "-t", suite, *names)
        printed = run_tool(("apt-get", "-c", self._config, *asked))
        return sorted(
            one["name"] for line in printed.splitlines() if (one := _URI_FILE.match(line))
        )

    def lock(self, names: Sequence[str]) -> tuple[LockedFile, ...]:
        """Return what the signed lists say of packages ("NAME" or "NAME/SUITE")."""
        printed = run_tool(("apt-cache", "-c", self._config, "show", "--no-all-versions", *names))
        found = [_fields(paragraph) for paragraph in printed.split("\n\n") if paragraph.strip()]
        if len(found) != len(names):
            raise DeviceError(f"Debian's lists have {len(found)} of {len(names)} packages")
        return tuple(sorted(map(_locked, found), key=lambda one: one.name))


@contextmanager
def private_apt(architecture: str) -> Iterator[PrivateApt]:
    """Yield an apt with fresh lists of both suites, and remove it afterwards."""
    with tempfile.TemporaryDirectory(prefix="private-apt-") as folder:
        root = Path(folder)
        root.chmod(0o755)  # apt fetches as a user without rights where it is run by root
        for name in ("state/lists/partial", "cache/archives/partial"):
            (root / name).mkdir(parents=True)
        (root / "status").touch()
        config = root / "apt.conf"
        config.write_text(_PRIVATE_APT.format(architecture=architecture, root=root))
        apt = PrivateApt(config)
        _update_from_any_mirror(apt, root / "sources.list")
        yield apt


def _update_from_any_mirror(apt: PrivateApt, sources: Path) -> None:
    failure = DeviceError("no mirror of Debian was tried")
    for mirror in debian_mirrors():
        lines = (f"deb [signed-by={KEYRING}] {mirror} {suite} main" for suite in SUITES.values())
        sources.write_text("\n".join(lines) + "\n")
        try:
            return apt.update()
        except DeviceError as error:
            failure = error
    raise failure


def _fields(paragraph: str) -> dict[str, str]:
    pairs = (line.split(": ", 1) for line in paragraph.splitlines() if not line.startswith(" "))
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


def _locked(fields: dict[str, str]) -> LockedFile:
    return LockedFile(
        name=fields["Package"],
        version=fields["Version"],
        path=fields["Filename"],
        sha256=fields["SHA256"],
        size_bytes=int(fields["Size"]),
    )


def lock_wheels(machine: str) -> tuple[LockedFile, ...]:
    """Download the wheels of another machine in the versions of this Python, and hash them."""
    versions = {name: version(name) for name in DISTRIBUTIONS}
    locked = []
    with tempfile.TemporaryDirectory(prefix="wheels-") as folder:
        fetch_wheels([f"{name}=={one}" for name, one in versions.items()], machine, Path(folder))
        for path in sorted(Path(folder).glob("*.whl")):
            name = path.name.split("-")[0]
            locked.append(
                LockedFile(
                    name=name,
                    version=versions[name],
                    path=path.name,
                    sha256=sha256_file(path),
                    size_bytes=path.stat().st_size,
                )
            )
    return tuple(locked)
