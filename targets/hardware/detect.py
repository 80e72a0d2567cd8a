"""What a machine is, from what its operating system says of it.

Live flags count, never what a table promises of a model (`targets.hardware.profiles`): firmware
and hypervisors hide instructions. Linux tells everything in one small file; macOS is asked by
`sysctl`; elsewhere py-cpuinfo runs CPUID itself, which takes a second or more.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from targets.contract import Hardware
from targets.hardware.microarchitectures import ARM_IMPLEMENTERS, name_arm, name_x86

CPUINFO = Path("/proc/cpuinfo")
_BOARD = Path("/sys/firmware/devicetree/base/model")
_ARCHITECTURES = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """The part of `Hardware` that is the CPU itself."""

    vendor: str
    model_name: str
    microarchitecture: str
    features: frozenset[str]


def detect_hardware() -> Hardware:
    """Detect this machine: live flags, usable cores, memory. Takes milliseconds on Linux."""
    architecture = normalize_architecture(platform.machine())
    return _hardware(_detect_cpu(architecture), architecture, usable_cores(), memory_bytes())


def hardware_from_cpuinfo(
    text: str, *, architecture: str, num_cores: int, memory_bytes: int, board: str = ""
) -> Hardware:
    """Read what another Linux machine says of itself; nothing of this machine is looked at.

    Args:
        text: its `/proc/cpuinfo`.
        architecture: its machine type (`uname -m`).
        num_cores: CPUs that may be used there.
        memory_bytes: its physical memory.
        board: its `/sys/firmware/devicetree/base/model`, which ARM kernels keep the model's
            name in; "" where it has none.
    """
    spelled = normalize_architecture(architecture)
    cpu = parse_cpuinfo(text.splitlines(keepends=True), spelled, board)
    return _hardware(cpu, spelled, num_cores, memory_bytes)


def normalize_architecture(machine: str) -> str:
    """Spell a machine type as Linux does (x86_64, aarch64)."""
    name = machine.lower()
    return _ARCHITECTURES.get(name, name)


def usable_cores() -> int:
    """Count the CPUs that this process may run on."""
    if platform.system() == "Linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_bytes() -> int:
    """Return the machine's physical memory."""
    if platform.system() != "Windows":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    import psutil

    return int(psutil.virtual_memory().total)


def _hardware(cpu: Cpu, architecture: str, num_cores: int, memory_bytes: int) -> Hardware:
    return Hardware(
        architecture=architecture,
        vendor=cpu.vendor,
        model_name=cpu.model_name,
        microarchitecture=cpu.microarchitecture,
        features=cpu.features,
        num_cores=num_cores,
        memory_bytes=memory_bytes,
    )


def _detect_cpu(architecture: str) -> Cpu:
    if CPUINFO.exists():
        with CPUINFO.open(encoding="utf-8", errors="replace") as lines:
            return parse_cpuinfo(lines, architecture, _board())
    if platform.system() == "Darwin":
        from targets.hardware.fallback import read_sysctl

        return read_sysctl()
    from targets.hardware.fallback import read_cpuid

    return read_cpuid(architecture)


# ----------------------------------------------------------------------- /proc/cpuinfo


def parse_cpuinfo(lines: Iterable[str], architecture: str, board: str = "") -> Cpu:
    """Read Linux's `/proc/cpuinfo`.

    Args:
        lines: the file's lines. On x86 only the first CPU's block is read: the kernel
            samples every core's frequency while it prints, which takes long on many cores.
        architecture: as `normalize_architecture` spells it.
        board: the board's name, for ARM, whose kernels print no model name.
    """
    if architecture == "aarch64" or architecture.startswith("arm"):
        return _arm_cpu([_fields(block) for block in _blocks(lines)], board)
    fields = _fields(next(_blocks(lines), []))
    return x86_cpu(fields) if "vendor_id" in fields else _other_cpu(fields, architecture)


def _blocks(lines: Iterable[str]) -> Iterator[list[str]]:
    block: list[str] = []
    for line in lines:
        if line.strip():
            block.append(line)
        elif block:
            yield block
            block = []
    if block:
        yield block


def _fields(block: Iterable[str]) -> dict[str, str]:
    pairs = (line.partition(":") for line in block)
    return {name.strip(): value.strip() for name, _, value in pairs}


def x86_cpu(fields: Mapping[str, str]) -> Cpu:
    """Build a CPU from the kernel's fields of one x86 core."""
    vendor = fields["vendor_id"]
    features = frozenset(fields.get("flags", "").split())
    family, model = (_number(fields.get(name, "")) for name in ("cpu family", "model"))
    return Cpu(
        vendor=vendor,
        model_name=fields.get("model name", "unknown"),
        microarchitecture=name_x86(vendor, family, model, features),
        features=features,
    )


def _arm_cpu(blocks: list[dict[str, str]], board: str) -> Cpu:
    """Join the cores of an ARM system: features that all of them have, kinds of core named."""
    cores = [block for block in blocks if "CPU implementer" in block or "Features" in block]
    parts = tuple(dict.fromkeys(map(_arm_part, cores)))
    features = [frozenset(core.get("Features", "").split()) for core in cores]
    microarchitecture = name_arm(parts)
    return Cpu(
        vendor=ARM_IMPLEMENTERS.get(parts[0][0], "unknown") if parts else "unknown",
        model_name=board or _tail(blocks) or microarchitecture,
        microarchitecture=microarchitecture,
        features=frozenset.intersection(*features) if features else frozenset(),
    )


def _tail(blocks: list[dict[str, str]]) -> str:
    """Return the board's name from the block behind the cores, which some kernels print."""
    return next((block["Model"] for block in reversed(blocks) if block.get("Model")), "")


def _arm_part(core: Mapping[str, str]) -> tuple[int, int]:
    return _number(core.get("CPU implementer", "")), _number(core.get("CPU part", ""))


def _board() -> str:
    """Name this machine's board."""
    try:
        return _BOARD.read_text(encoding="utf-8", errors="replace").strip("\0 \n")
    except OSError:
        return ""


def _other_cpu(fields: Mapping[str, str], architecture: str) -> Cpu:
    name = fields.get("model name") or fields.get("cpu") or fields.get("uarch") or architecture
    return Cpu(
        vendor=fields.get("mvendorid", "unknown"),
        model_name=name,
        microarchitecture=architecture,
        features=frozenset(),
    )


def _number(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        return -1
