"""ARM CPUs, as data; sources of each row in its last column, explained in `cpu.SOURCES`.

Arm's own extensions come in steps, so a row names the step its core has:
Armv8.0 (FP and NEON) → Armv8.2 with FP16 and DotProd (SDOT, UDOT) → Armv8.4 to 8.6 with BF16 and
I8MM (BFMMLA, SMMLA) → SVE and SVE2.
"""

from __future__ import annotations

from targets.hardware.cpu import CpuProfile

_ARMV8_0 = frozenset({"fp", "asimd"})
_ARMV8_2 = _ARMV8_0 | {"fphp", "asimdhp", "asimdrdm"}
_DOTPROD = _ARMV8_2 | {"asimddp"}
_FHM = _DOTPROD | {"asimdfhm"}
_I8MM = _FHM | {"i8mm", "bf16"}
_SVE = _I8MM | {"sve", "svei8mm", "svebf16"}
_SVE2 = _SVE | {"sve2"}

_PHONE = "phone firmware often hides SVE and SVE2"


def _arm(
    name: str,
    features: frozenset[str],
    sources: str,
    *,
    aliases: str = "",
    qemu: bool = False,
    note: str = "",
) -> CpuProfile:
    """Build the row of a core that Arm designed; `sources` and `aliases` are separated by blanks.

    QEMU calls Arm's cores by Arm's names.
    """
    return CpuProfile(
        name=name,
        microarchitecture=name.replace("-", "_"),
        vendor="ARM",
        architecture="aarch64",
        features=features,
        sources=tuple(sources.split()),
        aliases=tuple(aliases.split()),
        qemu_model=name if qemu else None,
        note=note,
    )


def _other(
    name: str,
    microarchitecture: str,
    vendor: str,
    features: frozenset[str],
    sources: str,
    *,
    aliases: str = "",
    qemu_model: str | None = None,
    note: str = "",
) -> CpuProfile:
    return CpuProfile(
        name=name,
        microarchitecture=microarchitecture,
        vendor=vendor,
        architecture="aarch64",
        features=features,
        sources=tuple(sources.split()),
        aliases=tuple(aliases.split()),
        qemu_model=qemu_model,
        note=note,
    )


_CORTEX_A = (
    _arm("cortex-a35", _ARMV8_0, "linux llvm qemu", qemu=True),
    _arm(
        "cortex-a53",
        _ARMV8_0,
        "linux llvm qemu",
        aliases="raspberry-pi-3 raspberry-pi-zero-2",
        qemu=True,
    ),
    _arm("cortex-a55", _DOTPROD, "linux llvm qemu", qemu=True),
    _arm("cortex-a57", _ARMV8_0, "linux llvm qemu", aliases="jetson-nano", qemu=True),
    _arm(
        "cortex-a72",
        _ARMV8_0,
        "linux llvm archspec qemu",
        aliases="raspberry-pi-4 graviton1 rk3399",
        qemu=True,
        note="no int8 dot product: int8 is multiplied by SMULL",
    ),
    _arm("cortex-a73", _ARMV8_0, "linux llvm"),
    _arm("cortex-a75", _DOTPROD, "linux llvm"),
    _arm(
        "cortex-a76",
        _DOTPROD,
        "linux llvm qemu",
        aliases="raspberry-pi-5 rk3588 orange-pi-5",
        qemu=True,
    ),
    _arm("cortex-a77", _DOTPROD, "linux llvm", aliases="snapdragon-865"),
    _arm("cortex-a78", _DOTPROD, "linux llvm"),
    _arm("cortex-a78ae", _DOTPROD, "linux llvm", aliases="jetson-orin"),
    _arm("cortex-a78c", _DOTPROD, "linux llvm"),
    _arm("cortex-a510", _SVE2, "linux llvm", note=_PHONE),
    _arm("cortex-a520", _SVE2, "linux llvm", note=_PHONE),
    _arm("cortex-a710", _SVE2, "linux llvm qemu", qemu=True, note=_PHONE),
    _arm("cortex-a715", _SVE2, "linux llvm", note=_PHONE),
    _arm("cortex-a720", _SVE2, "linux llvm", note=_PHONE),
    _arm("cortex-a725", _SVE2, "linux llvm", note=_PHONE),
)
_CORTEX_X = (
    _arm("cortex-x1", _DOTPROD, "linux llvm", aliases="snapdragon-888 tensor-g1 tensor-g2"),
    _arm("cortex-x1c", _DOTPROD, "linux llvm", aliases="snapdragon-8cx-gen-3"),
    _arm(
        "cortex-x2", _SVE2, "linux llvm", aliases="snapdragon-8-gen-1 dimensity-9000", note=_PHONE
    ),
    _arm(
        "cortex-x3",
        _SVE2,
        "linux llvm",
        aliases="snapdragon-8-gen-2 dimensity-9200 tensor-g3",
        note=_PHONE,
    ),
    _arm(
        "cortex-x4",
        _SVE2,
        "linux llvm",
        aliases="snapdragon-8-gen-3 dimensity-9300 tensor-g4",
        note=_PHONE,
    ),
    _arm("cortex-x925", _SVE2, "linux llvm", aliases="dimensity-9400", note=_PHONE),
)
_NEOVERSE = (
    _arm(
        "neoverse-n1",
        _DOTPROD,
        "linux llvm archspec qemu",
        aliases="graviton2 ampere-altra",
        qemu=True,
    ),
    _arm(
        "neoverse-n2", _SVE2, "linux llvm archspec qemu", aliases="cobalt-100 yitian-710", qemu=True
    ),
    _arm("neoverse-n3", _SVE2, "linux llvm"),
    _arm("neoverse-v1", _SVE, "linux llvm archspec qemu", aliases="graviton3", qemu=True),
    _arm("neoverse-v2", _SVE2, "linux llvm archspec", aliases="graviton4 grace axion"),
    _arm("neoverse-v3", _SVE2, "linux llvm"),
)
_OTHERS = (
    _other("apple-m1", "m1", "Apple", _FHM, "linux llvm archspec"),
    _other("apple-m2", "m2", "Apple", _I8MM, "linux llvm archspec"),
    _other("apple-m3", "m3", "Apple", _I8MM, "llvm archspec"),
    _other(
        "apple-m4",
        "m4",
        "Apple",
        _I8MM | {"sme", "sme2"},
        "llvm archspec",
        note="numbers from LLVM only; macOS itself is asked by sysctl",
    ),
    _other(
        "ampereone",
        "ampere1",
        "Ampere",
        _FHM - {"asimdfhm"} | {"i8mm", "bf16"},
        "linux llvm archspec",
        note="archspec lists asimdfhm, LLVM does not: left out",
    ),
    _other(
        "oryon",
        "oryon",
        "Qualcomm",
        _I8MM,
        "llvm",
        aliases="snapdragon-x-elite snapdragon-x-plus",
        note="one source only",
    ),
    _other(
        "a64fx", "a64fx", "Fujitsu", _ARMV8_2 | {"sve"}, "llvm archspec qemu", qemu_model="a64fx"
    ),
)

ARM_CPUS: tuple[CpuProfile, ...] = (*_CORTEX_A, *_CORTEX_X, *_NEOVERSE, *_OTHERS)
"""Oldest first within a family."""
