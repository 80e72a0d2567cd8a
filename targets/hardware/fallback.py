"""The CPU on systems without `/proc/cpuinfo`: macOS by sysctl, others by py-cpuinfo."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

from targets.hardware.detect import Cpu, x86_cpu

_SYSCTL = "/usr/sbin/sysctl"
_SYSCTL_TIMEOUT_S = 10.0

_APPLE_FEATURES: Mapping[str, str] = {
    "hw.optional.arm.FEAT_FP16": "asimdhp",
    "hw.optional.arm.FEAT_DotProd": "asimddp",
    "hw.optional.arm.FEAT_BF16": "bf16",
    "hw.optional.arm.FEAT_I8MM": "i8mm",
    "hw.optional.arm.FEAT_SME": "sme",
    "hw.optional.arm.FEAT_SME2": "sme2",
}
"""macOS's names (`sysctl hw.optional`) → the kernel names that Linux uses."""

_SPELLINGS: Mapping[str, str] = {
    "avx1.0": "avx",
    "sse4.1": "sse4_1",
    "sse4.2": "sse4_2",
    "avx512vnni": "avx512_vnni",
    "avx512bf16": "avx512_bf16",
    "avx512fp16": "avx512_fp16",
    "avx512vbmi2": "avx512_vbmi2",
    "amx-int8": "amx_int8",
    "amx-bf16": "amx_bf16",
    "amx-tile": "amx_tile",
    "avxvnni": "avx_vnni",
    "avx-vnni": "avx_vnni",
}
"""Other spellings of x86 features → the kernel names that Linux uses."""


def read_sysctl() -> Cpu:
    """Ask macOS what its CPU is."""
    command = [_SYSCTL, "machdep.cpu", "hw.optional"]
    answer = subprocess.run(  # noqa: S603 - a fixed command
        command, capture_output=True, text=True, timeout=_SYSCTL_TIMEOUT_S, check=False
    )
    return parse_sysctl(answer.stdout)


def parse_sysctl(text: str) -> Cpu:
    """Read the `name: value` lines of `sysctl machdep.cpu hw.optional`."""
    pairs = (line.partition(":") for line in text.splitlines())
    facts = {name.strip(): value.strip() for name, _, value in pairs}
    brand = facts.get("machdep.cpu.brand_string", "unknown")
    if "machdep.cpu.family" in facts:
        return _intel_mac(facts, brand)
    features = frozenset(name for key, name in _APPLE_FEATURES.items() if facts.get(key) == "1")
    family = "_".join(brand.removeprefix("Apple ").lower().split()[:1])
    return Cpu(
        vendor="Apple",
        model_name=brand,
        microarchitecture=family or "aarch64",
        features=features,
    )


def _intel_mac(facts: Mapping[str, str], brand: str) -> Cpu:
    lists = ("machdep.cpu.features", "machdep.cpu.leaf7_features", "machdep.cpu.extfeatures")
    flags = " ".join(facts.get(name, "") for name in lists).lower().split()
    return _x86(
        facts.get("machdep.cpu.vendor", "GenuineIntel"),
        brand,
        (facts["machdep.cpu.family"], facts.get("machdep.cpu.model", "")),
        flags,
    )


def read_cpuid(architecture: str) -> Cpu:
    """Let py-cpuinfo find out by itself (more than a second)."""
    import cpuinfo

    return parse_py_cpuinfo(cpuinfo.get_cpu_info(), architecture)


def parse_py_cpuinfo(facts: Mapping[str, object], architecture: str) -> Cpu:
    """Translate what `cpuinfo.get_cpu_info()` returns."""
    brand = str(facts.get("brand_raw", "unknown"))
    flags = facts.get("flags", ())
    names = [str(flag) for flag in flags] if isinstance(flags, list) else []
    if architecture == "x86_64":
        numbers = (str(facts.get("family", "")), str(facts.get("model", "")))
        return _x86(str(facts.get("vendor_id_raw", "unknown")), brand, numbers, names)
    return Cpu(
        vendor=str(facts.get("vendor_id_raw", "unknown")),
        model_name=brand,
        microarchitecture=architecture,
        features=frozenset(names),
    )


def _x86(vendor: str, brand: str, numbers: tuple[str, str], flags: list[str]) -> Cpu:
    return x86_cpu(
        {
            "vendor_id": vendor,
            "model name": brand,
            "cpu family": numbers[0],
            "model": numbers[1],
            "flags": " ".join(_SPELLINGS.get(flag, flag) for flag in flags),
        }
    )
