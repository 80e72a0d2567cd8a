"""CPUs by name, whether or not one is at hand."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from targets.errors import ConfigError
from targets.hardware.arm_cpus import ARM_CPUS
from targets.hardware.cpu import CpuProfile
from targets.hardware.x86_cpus import X86_CPUS

__all__ = ["CpuProfile", "cpu_profile", "cpu_profiles", "nearest"]


def cpu_profiles() -> tuple[CpuProfile, ...]:
    """Return every CPU of the table, ARM first, the oldest of a family first."""
    return (*ARM_CPUS, *X86_CPUS)


def cpu_profile(name: str) -> CpuProfile:
    """Return the CPU of that name.

    Args:
        name: a row's name, an alias (`graviton3`, `raspberry-pi-5`), or detection's name
            (`neoverse_v1`); upper and lower case, `_`, `-` and blanks are alike.

    Raises:
        ConfigError: no such CPU; the nearest names come first.
    """
    known = {_plain(one): profile for profile in cpu_profiles() for one in _names(profile)}
    found = known.get(_plain(name))
    if found is not None:
        return found
    names = nearest(name, (one for profile in cpu_profiles() for one in _listed(profile)))
    raise ConfigError(
        f"unknown CPU {name!r}",
        why=f"known ones, the nearest first: {', '.join(names[:8])}, …",
        hint=f"for example {names[0]}; docs/hardware.md lists all of them",
    )


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Sort names by likeness to a mistyped one."""
    wanted = name.lower()
    return sorted(
        known, key=lambda one: -difflib.SequenceMatcher(None, wanted, one.lower()).ratio()
    )


def _listed(profile: CpuProfile) -> tuple[str, ...]:
    return (profile.name, *profile.aliases)


def _names(profile: CpuProfile) -> tuple[str, ...]:
    # What people chose comes last and wins; detection's names are an extra.
    return (profile.microarchitecture, *_listed(profile))


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").replace(" ", "-")
