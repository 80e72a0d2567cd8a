"""What the far end says of its machine, in the terms of the contract."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from targets.contract import Hardware
from targets.hardware.detect import hardware_from_cpuinfo, normalize_architecture
from targets.hardware.fallback import parse_sysctl

_NOT_RUNTIMES = frozenset({"python", "system", "numpy"})


def to_hardware(facts: Mapping[str, Any]) -> Hardware:
    """Make sense of raw facts.

    Args:
        facts: what `targets.devices.far.machine.describe_machine` returns.
    """
    if facts["system"] == "Darwin":
        return _mac(facts)
    return hardware_from_cpuinfo(
        facts["cpuinfo"],
        architecture=facts["architecture"],
        num_cores=facts["num_cores"],
        memory_bytes=facts["memory_bytes"],
        board=facts["board"],
    )


def _mac(facts: Mapping[str, Any]) -> Hardware:
    cpu = parse_sysctl(facts["sysctl"])
    return Hardware(
        architecture=normalize_architecture(facts["architecture"]),
        vendor=cpu.vendor,
        model_name=cpu.model_name,
        microarchitecture=cpu.microarchitecture,
        features=cpu.features,
        num_cores=facts["num_cores"],
        memory_bytes=facts["memory_bytes"],
    )


def select_distributions(installed: Mapping[str, str], names: tuple[str, ...]) -> dict[str, str]:
    """Pick distributions by name, however they spell it.

    Args:
        installed: name → version of all distributions there.
        names: those asked for.

    Returns:
        Name as it was asked for → version, of those that are installed.
    """
    versions = {_normalize(name): found for name, found in installed.items()}
    return {name: versions[_normalize(name)] for name in names if _normalize(name) in versions}


def _normalize(name: str) -> str:
    """Spell a distribution's name as the Simple Repository API does (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def older_runtimes(there: Mapping[str, str]) -> tuple[str, ...]:
    """Warn of every runtime that is older on the device than here, where artifacts are built.

    Args:
        there: tool versions as the runner reports them.
    """
    warnings = []
    for name in sorted(there.keys() - _NOT_RUNTIMES):
        here = _version_here(name)
        if here and _numbers(there[name]) < _numbers(here):
            warnings.append(
                f"{name} is {there[name]} on the device and {here} here, where the artifact was "
                f"built: an older runtime may run it differently or not at all"
            )
    return tuple(warnings)


def _version_here(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def _numbers(text: str) -> tuple[int, ...]:
    """Read the release numbers that a version begins with ("2026.4.1-123-abc" → 2026, 4, 1)."""
    match = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(map(int, match[0].split("."))) if match else ()
