"""A Debian mirror and a Python index in two folders: real apt, dpkg and pip, no network.

The packages are tiny. Their `qemu-*` is a shell script that says what the first run must say, so
that a whole set-up takes two seconds.
"""

from __future__ import annotations

import os
import subprocess
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

from targets.devices.userland_lock import DEBIAN_NAMES, LockedFile, UserlandLock
from targets.hashing import sha256_file

RUNS = "#!/bin/sh\necho ready\n"
FAILS = "#!/bin/sh\necho 'Illegal instruction' >&2\nexit 132\n"
QEMU_VERSION = "1:10.0.2+ds-2~bpo12+1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """The folders, and a lock of what is in them."""

    folder: Path
    index: Path
    lock: UserlandLock

    def variables(self) -> dict[str, str]:
        """What makes apt and pip use the two folders and nothing else."""
        return {
            "APT_CONFIG": str(self.folder / "apt.conf"),
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.index),
            "PIP_CONFIG_FILE": os.devnull,
        }

    def relock(self, **changes) -> UserlandLock:
        """The lock with other values in the first package or wheel of arm64."""
        kind = changes.pop("kind")
        files = getattr(self.lock, kind)["arm64"]
        changed = (replace(files[0], **changes), *files[1:])
        return replace(self.lock, **{kind: {**getattr(self.lock, kind), "arm64": changed}})


def build_mirror(folder: Path, codename: str, qemu: str = RUNS) -> Mirror:
    """Build both folders; `qemu` is the script in place of the emulator."""
    pool, index = folder / "pool", folder / "index"
    pool.mkdir(parents=True)
    index.mkdir()
    emulators = {f"usr/bin/qemu-{machine}": qemu for machine in DEBIAN_NAMES}
    library = {"lib/libtiny.so.1": "library", "usr/bin/python3.11": "python"}
    hosts = {
        name: _package(
            folder, "qemu-user", QEMU_VERSION, name, {**emulators, "usr/bin/qemu-s390x": ""}
        )
        for name in DEBIAN_NAMES.values()
    }
    packages = {
        name: (_package(folder, "libtiny1", "1.0-2+b1", name, library),)
        for name in DEBIAN_NAMES.values()
    }
    wheels = {name: (_wheel(index, machine),) for machine, name in DEBIAN_NAMES.items()}
    _write_apt_config(folder, codename)
    lock = UserlandLock(
        source=folder / "lock.json", suites={}, qemu=hosts, packages=packages, wheels=wheels
    )
    return Mirror(folder=folder, index=index, lock=lock)


def _write_apt_config(folder: Path, codename: str) -> None:
    sources = folder / "sources.list"
    sources.write_text(f"deb [trusted=yes] copy:{folder} {codename} main\n")
    (folder / "apt.conf").write_text(
        f'Dir::Etc::sourcelist "{sources}";\nDir::Etc::sourceparts "/dev/null";\n'
    )


def _package(
    folder: Path, name: str, version: str, architecture: str, files: dict[str, str]
) -> LockedFile:
    tree = folder / f"{name}-{architecture}"
    for path, content in files.items():
        place = tree / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content)
        place.chmod(0o755)
    (tree / "usr/lib").mkdir(exist_ok=True, parents=True)
    (tree / "usr/lib/libtiny.so").symlink_to("/lib/libtiny.so.1")
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: {version}\nArchitecture: {architecture}\n"
        "Maintainer: nobody <nobody@localhost>\nDescription: tiny\n"
    )
    path = f"pool/{name}_{architecture}.deb"
    command = ["dpkg-deb", "--root-owner-group", "--build", str(tree), str(folder / path)]
    subprocess.run(command, check=True, capture_output=True)
    return _locked(name, version, path, folder / path)


def _wheel(index: Path, machine: str) -> LockedFile:
    path = index / f"tiny-1.5-cp311-cp311-manylinux_2_28_{machine}.whl"
    record = "tiny-1.5.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny/__init__.py", "")
        archive.writestr("tiny-1.5.data/purelib/tiny/extra.py", "")
        archive.writestr(f"{record}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.5\n")
        archive.writestr(f"{record}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: false\n")
        archive.writestr(f"{record}/RECORD", "")
    return _locked("tiny", "1.5", path.name, path)


def _locked(name: str, version: str, path: str, file: Path) -> LockedFile:
    return LockedFile(
        name=name,
        version=version,
        path=path,
        sha256=sha256_file(file),
        size_bytes=file.stat().st_size,
    )
