"""What an emulated device is made of: QEMU, a Debian userland, numpy and ONNX Runtime.

Everything lies in the user's cache and is built once: no package is installed on the machine, no
rights are needed. QEMU is the statically linked `qemu-user` of Debian's backports; QEMU 10 or
newer, because 7.2 shows programs the host's /proc/cpuinfo on ARM (ONNX Runtime then crashes) and
computes dynamic int8 wrongly with SME.
"""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

from targets.devices.userland_lock import DEBIAN_NAMES, UserlandLock, read_lock
from targets.devices.userland_parts import damage_of
from targets.devices.userland_wheels import PYTHON_VERSION
from targets.errors import NotInstalledError

ROOT_VARIABLE = "EMBEDDING_EXPORTER_DEVICES"
"""Names the folder of emulated devices; default: `devices` in the cache folder."""
CACHE_VARIABLE = "EMBEDDING_EXPORTER_CACHE"
MIN_QEMU = 10


def devices_root() -> Path:
    """Return the folder of emulated devices: the environment's, or one in the user's cache."""
    from platformdirs import user_cache_dir

    named = os.environ.get(ROOT_VARIABLE)
    if named:
        return Path(named).expanduser().absolute()
    cache = os.environ.get(CACHE_VARIABLE) or user_cache_dir("embedding-exporter")
    return Path(cache).expanduser().absolute() / "devices"


@dataclass(frozen=True, slots=True, kw_only=True)
class Userland:
    """Where the parts of an emulated architecture lie, whether they are built or not.

    Args:
        machine: the kernel's name of the architecture ("aarch64", "x86_64").
        emulator: the folder of QEMU.
        folder: the folder of sysroot and site-packages.
        qemu_version: Debian's version of the package.
    """

    machine: str
    emulator: Path
    folder: Path
    qemu_version: str

    @property
    def qemu(self) -> Path:
        """The emulator of this architecture."""
        return self.emulator / qemu_member(self.machine)

    @property
    def sysroot(self) -> Path:
        """Where the userland's absolute paths begin."""
        return self.folder / "sysroot"

    @property
    def site_packages(self) -> Path:
        """Folder of the Python packages."""
        return self.folder / "site-packages"

    @property
    def qemu_release(self) -> str:
        """The emulator's own version, such as "10.0.2"."""
        return upstream_version(self.qemu_version)

    def python(self, cpu_model: str) -> tuple[str, ...]:
        """Return the command that runs the userland's Python on a model of QEMU's.

        `-S` and `-s` leave the site folders out: packages come by PYTHONPATH alone.
        """
        interpreter = self.sysroot / "usr" / "bin" / f"python{PYTHON_VERSION}"
        emulator = (str(self.qemu), "-L", str(self.sysroot), "-cpu", cpu_model)
        return (*emulator, str(interpreter), "-S", "-s", "-P", "-X", "utf8")

    def environment(self) -> dict[str, str]:
        """Return all variables of a process in there; the caller's own would change results.

        No bytecode is written: the userland stays what was verified.
        """
        return {
            "PATH": os.defpath,
            "LANG": "C.UTF-8",
            "TMPDIR": tempfile.gettempdir(),
            "PYTHONPATH": str(self.site_packages),
            "PYTHONDONTWRITEBYTECODE": "1",
            "ORT_DISABLE_TELEMETRY": "1",
        }

    def distributions(self, names: Sequence[str]) -> dict[str, str]:
        """Return the versions of those distributions that are in its site-packages."""
        found = {one.name: one.version for one in distributions(path=[str(self.site_packages)])}
        return {name: found[name] for name in names if name in found}

    def damage(self, *, deep: bool) -> str:
        """Say what is wrong with the files, "" if nothing; `deep` compares hashes too."""
        return damage_of(self.emulator, deep=deep) or damage_of(self.folder, deep=deep)

    @property
    def is_built(self) -> bool:
        """Whether somebody has built it; see `damage` for whether it is sound."""
        return self.qemu.is_file() and self.sysroot.is_dir()


def locate_userland(
    machine: str, *, root: Path | None = None, lock: UserlandLock | None = None
) -> Userland:
    """Say where the parts of an architecture lie, built or not.

    Raises:
        NotInstalledError: the lock has nothing for this machine or for that architecture, or
            only a QEMU that is too old.
        ConfigError: the lock cannot be read.
    """
    locked = lock or read_lock()
    place = root or devices_root()
    host, architecture = host_name(locked), _architecture(machine, locked)
    version = locked.qemu[host].version
    _require_qemu(version, locked)
    return Userland(
        machine=machine,
        emulator=place / f"qemu-{host}-{locked.qemu_key(host)}",
        folder=place / f"userland-{architecture}-{locked.userland_key(architecture)}",
        qemu_version=version,
    )


def qemu_member(machine: str) -> str:
    """Return the path of an architecture's emulator in the package `qemu-user`."""
    return f"usr/bin/qemu-{machine}"


def upstream_version(version: str) -> str:
    """Return the upstream part of a Debian version: [epoch:]upstream[+…][-revision]."""
    return version.rpartition(":")[2].split("-")[0].split("+")[0]


def host_name(lock: UserlandLock) -> str:
    """Return Debian's name of this machine's architecture.

    Raises:
        NotInstalledError: the lock has no emulator for it.
    """
    machine = platform.machine()
    name = DEBIAN_NAMES.get(machine, machine)
    if platform.system() != "Linux" or name not in lock.qemu:
        raise NotInstalledError(
            f"nothing can be emulated on {platform.system()} {machine}",
            why=f"QEMU's user mode is there for Linux on {_some(lock.qemu)}",
            hint="use a container of such a kind, or a real device (ssh://)",
        )
    return name


def _architecture(machine: str, lock: UserlandLock) -> str:
    name = DEBIAN_NAMES.get(machine, machine)
    if name not in lock.packages:
        raise NotInstalledError(
            f"there is no userland for {machine}", why=f"{lock.source} has {_some(lock.packages)}"
        )
    return name


def _require_qemu(version: str, lock: UserlandLock) -> None:
    if int(upstream_version(version).split(".")[0]) < MIN_QEMU:
        raise NotInstalledError(
            f"QEMU {upstream_version(version)} is too old for emulated devices",
            why=f"before {MIN_QEMU}, ONNX Runtime crashes or miscomputes on emulated ARM",
            hint=f"lock QEMU {MIN_QEMU} or newer (Debian's backports) in {lock.source}",
        )


def _some(names: Mapping[str, object]) -> str:
    return " and ".join(sorted(names))
