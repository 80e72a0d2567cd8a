"""Names of CPU microarchitectures by the numbers that CPUs say of themselves.

A name is for people and for the device fingerprint; what a CPU can do is read from its live
flags only, because hypervisors and firmware hide instructions that a model number promises.

Sources: Linux 6.12, `arch/x86/include/asm/intel-family.h`, `arch/x86/kernel/cpu/amd.c` and
`arch/arm64/include/asm/cputype.h`; parts that Linux does not name (Apple M3 and M4, Qualcomm Oryon,
AmpereOne B) from LLVM's host detection.
"""

from __future__ import annotations

from collections.abc import Mapping

INTEL_FAMILY_6: Mapping[int, str] = {
    42: "sandybridge",
    45: "sandybridge",
    58: "ivybridge",
    62: "ivybridge",
    60: "haswell",
    63: "haswell",
    69: "haswell",
    70: "haswell",
    61: "broadwell",
    71: "broadwell",
    79: "broadwell",
    86: "broadwell",
    78: "skylake",
    94: "skylake",
    142: "kabylake",
    158: "kabylake",
    165: "cometlake",
    166: "cometlake",
    87: "knightslanding",
    106: "icelake_server",
    108: "icelake_server",
    125: "icelake_client",
    126: "icelake_client",
    140: "tigerlake",
    141: "tigerlake",
    167: "rocketlake",
    151: "alderlake",
    154: "alderlake",
    190: "gracemont",
    183: "raptorlake",
    186: "raptorlake",
    191: "raptorlake",
    170: "meteorlake",
    172: "meteorlake",
    181: "arrowlake",
    197: "arrowlake",
    198: "arrowlake",
    189: "lunarlake",
    204: "pantherlake",
    143: "sapphirerapids",
    207: "emeraldrapids",
    173: "graniterapids",
    174: "graniterapids",
    175: "sierraforest",
    182: "grandridge",
    221: "clearwaterforest",
}

AMX_FEATURE = "amx_tile"
AMX_FAMILIES = frozenset({"sapphirerapids", "emeraldrapids", "graniterapids"})
"""A hypervisor may show AMX together with the model number of a CPU that never had it."""

INTEL_SKYLAKE_SERVER_MODEL = 85
"""Three server generations share this number and differ in their flags."""
SKYLAKE_SERVER_STEPS: tuple[tuple[str, str], ...] = (
    ("avx512_bf16", "cooperlake"),
    ("avx512_vnni", "cascadelake"),
    ("avx512f", "skylake_avx512"),
)
"""(feature, name), the newest first."""

AMD_MODELS: Mapping[int, tuple[tuple[range, str], ...]] = {
    0x17: (
        (range(0x30), "zen"),
        (range(0x50, 0x60), "zen"),
        (range(0x30, 0x100), "zen2"),
    ),
    0x19: (
        (range(0x10), "zen3"),
        (range(0x20, 0x60), "zen3"),
        (range(0x10, 0x20), "zen4"),
        (range(0x60, 0xB0), "zen4"),
    ),
    0x1A: (
        (range(0x30), "zen5"),
        (range(0x40, 0x50), "zen5"),
        (range(0x60, 0x80), "zen5"),
        (range(0x50, 0x60), "zen6"),
        (range(0x80, 0xD0), "zen6"),
    ),
}
"""CPU family → (models, name); the first range that holds the model counts."""

X86_LEVELS: tuple[tuple[frozenset[str], str], ...] = (
    (frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}), "x86_64_v4"),
    (frozenset({"avx2", "fma", "bmi2", "f16c"}), "x86_64_v3"),
    (frozenset({"sse4_2", "popcnt"}), "x86_64_v2"),
)
"""Levels of the x86-64 psABI, for CPUs that no table names; the highest first."""

ARM_IMPLEMENTERS: Mapping[int, str] = {
    0x41: "ARM",
    0x43: "Cavium",
    0x46: "Fujitsu",
    0x48: "HiSilicon",
    0x4E: "NVIDIA",
    0x51: "Qualcomm",
    0x61: "Apple",
    0x6D: "Microsoft",
    0xC0: "Ampere",
}

ARM_PARTS: Mapping[tuple[int, int], str] = {
    (0x41, 0xD03): "cortex_a53",
    (0x41, 0xD04): "cortex_a35",
    (0x41, 0xD05): "cortex_a55",
    (0x41, 0xD07): "cortex_a57",
    (0x41, 0xD08): "cortex_a72",
    (0x41, 0xD09): "cortex_a73",
    (0x41, 0xD0A): "cortex_a75",
    (0x41, 0xD0B): "cortex_a76",
    (0x41, 0xD0C): "neoverse_n1",
    (0x41, 0xD0D): "cortex_a77",
    (0x41, 0xD0E): "cortex_a76ae",
    (0x41, 0xD40): "neoverse_v1",
    (0x41, 0xD41): "cortex_a78",
    (0x41, 0xD42): "cortex_a78ae",
    (0x41, 0xD44): "cortex_x1",
    (0x41, 0xD46): "cortex_a510",
    (0x41, 0xD47): "cortex_a710",
    (0x41, 0xD48): "cortex_x2",
    (0x41, 0xD49): "neoverse_n2",
    (0x41, 0xD4B): "cortex_a78c",
    (0x41, 0xD4C): "cortex_x1c",
    (0x41, 0xD4D): "cortex_a715",
    (0x41, 0xD4E): "cortex_x3",
    (0x41, 0xD4F): "neoverse_v2",
    (0x41, 0xD80): "cortex_a520",
    (0x41, 0xD81): "cortex_a720",
    (0x41, 0xD82): "cortex_x4",
    (0x41, 0xD83): "neoverse_v3ae",
    (0x41, 0xD84): "neoverse_v3",
    (0x41, 0xD85): "cortex_x925",
    (0x41, 0xD87): "cortex_a725",
    (0x41, 0xD8E): "neoverse_n3",
    (0x43, 0x0AF): "thunderx2",
    (0x46, 0x001): "a64fx",
    (0x48, 0xD01): "tsv110",
    (0x4E, 0x010): "olympus",
    (0x51, 0x001): "oryon",
    (0x61, 0x022): "m1",
    (0x61, 0x023): "m1",
    (0x61, 0x024): "m1",
    (0x61, 0x025): "m1",
    (0x61, 0x028): "m1",
    (0x61, 0x029): "m1",
    (0x61, 0x032): "m2",
    (0x61, 0x033): "m2",
    (0x61, 0x034): "m2",
    (0x61, 0x035): "m2",
    (0x61, 0x038): "m2",
    (0x61, 0x039): "m2",
    (0x61, 0x042): "m3",
    (0x61, 0x043): "m3",
    (0x61, 0x044): "m3",
    (0x61, 0x045): "m3",
    (0x61, 0x048): "m3",
    (0x61, 0x049): "m3",
    (0x61, 0x052): "m4",
    (0x61, 0x053): "m4",
    (0x61, 0x054): "m4",
    (0x61, 0x055): "m4",
    (0x61, 0x058): "m4",
    (0x61, 0x059): "m4",
    (0x6D, 0xD49): "neoverse_n2",
    (0xC0, 0xAC3): "ampere1",
    (0xC0, 0xAC4): "ampere1a",
    (0xC0, 0xAC5): "ampere1b",
}
"""(implementer, part) → name."""


def name_x86(vendor: str, family: int, model: int, features: frozenset[str]) -> str:
    """Name an x86 CPU from the numbers of CPUID leaf 1 and, where they tie, its features.

    Args:
        vendor: "GenuineIntel", "AuthenticAMD", …
        family: family with the extended family added, as the kernel prints it.
        model: model with the extended model added.
        features: live flags, kernel names.

    Returns:
        A microarchitecture, else the psABI level of the features, else "x86_64".
    """
    if vendor == "GenuineIntel" and family == 6:
        if model == INTEL_SKYLAKE_SERVER_MODEL:
            return _first(SKYLAKE_SERVER_STEPS, features) or _level(features)
        known = INTEL_FAMILY_6.get(model)
        impossible = AMX_FEATURE in features and known not in AMX_FAMILIES
        return known if known and not impossible else _level(features)
    if vendor == "AuthenticAMD":
        for models, name in AMD_MODELS.get(family, ()):
            if model in models:
                return name
    return _level(features)


def name_arm(parts: tuple[tuple[int, int], ...]) -> str:
    """Name an ARM CPU; cores of several kinds are joined: "cortex_a55+cortex_a76".

    Args:
        parts: (implementer, part) of the distinct cores, in the order they are listed.
    """
    names = (ARM_PARTS.get(part, f"arm_0x{part[0]:02x}_0x{part[1]:03x}") for part in parts)
    return "+".join(dict.fromkeys(names)) or "aarch64"


def numbers_of(name: str) -> tuple[str, ...]:
    """Return the numbers by which a CPU of that name is recognized, as `/proc/cpuinfo` has them.

    ARM: "0x41/0xd08" (implementer/part). x86: "6/143" (family/model), "25/16-31" for a range.
    Empty for names that no table gives.
    """
    arm = [f"0x{one:02x}/0x{part:03x}" for (one, part), known in ARM_PARTS.items() if known == name]
    intel = [f"6/{model}" for model, known in INTEL_FAMILY_6.items() if known == name]
    if name in {known for _, known in SKYLAKE_SERVER_STEPS}:
        intel.append(f"6/{INTEL_SKYLAKE_SERVER_MODEL}")
    amd = [
        f"{family}/{models.start}-{models.stop - 1}"
        for family, rows in AMD_MODELS.items()
        for models, known in rows
        if known == name
    ]
    return (*arm, *intel, *amd)


def _first(steps: tuple[tuple[str, str], ...], features: frozenset[str]) -> str | None:
    return next((name for feature, name in steps if feature in features), None)


def _level(features: frozenset[str]) -> str:
    return next((name for needed, name in X86_LEVELS if needed <= features), "x86_64")
