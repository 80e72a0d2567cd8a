"""Older instruction sets that oneDNN can be held to, as data.

Names and contents: oneDNN 3.x, `include/oneapi/dnnl/dnnl_types.h`, `dnnl_cpu_isa_t`, whose bits say
what each set contains: AVX2-VNNI belongs to AVX2_VNNI (0xf) and to AVX512_CORE_AMX (0xfef), not to
AVX512_CORE (0x27), AVX512_CORE_VNNI (0x67) and AVX512_CORE_BF16 (0xe7).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from targets.contract import Hardware

_NEWER_THAN_AVX2 = ("avx512", "avx10", "amx_", "avx_")
"""How the kernel's names of vector extensions after AVX2 begin (avx_vnni, avx_ifma, …)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cap:
    """A set of instructions that a runtime is held to.

    Args:
        isa: value of oneDNN's `ONEDNN_MAX_CPU_ISA`.
        extensions: vector extensions after AVX2 that remain, by the kernel's names.
        optional: those of them that a CPU may lack.
    """

    isa: str
    extensions: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()

    @property
    def needed(self) -> frozenset[str]:
        """What a CPU must have to be held to this set."""
        return frozenset({"avx2"}) | (self.extensions - self.optional)


_AVX512_CORE = frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"})
_AVX512_VNNI = _AVX512_CORE | {"avx512_vnni"}
_AVX512_BF16 = _AVX512_VNNI | {"avx512_bf16"}
_WITH_AMX = frozenset({"avx_vnni", "avx512_fp16"})
_AMX = _AVX512_BF16 | {"amx_tile", "amx_int8", "amx_bf16"} | _WITH_AMX

CAPS: Mapping[str, Cap] = {
    "avx2": Cap(isa="AVX2"),
    "avx2_vnni": Cap(isa="AVX2_VNNI", extensions=frozenset({"avx_vnni"})),
    "avx512_core": Cap(isa="AVX512_CORE", extensions=_AVX512_CORE),
    "avx512_core_vnni": Cap(isa="AVX512_CORE_VNNI", extensions=_AVX512_VNNI),
    "avx512_core_bf16": Cap(isa="AVX512_CORE_BF16", extensions=_AVX512_BF16),
    "avx512_core_amx": Cap(isa="AVX512_CORE_AMX", extensions=_AMX, optional=_WITH_AMX),
}
"""Name in `local:<name>` → what remains, the oldest first."""

ALIASES: Mapping[str, str] = {
    "avx512": "avx512_core",
    "avx512_vnni": "avx512_core_vnni",
    "avx512_bf16": "avx512_core_bf16",
    "amx": "avx512_core_amx",
}
"""Shorter names."""


def cap_hardware(hardware: Hardware, cap: Cap) -> Hardware:
    """Return what a CPU seems to be when it is held to a cap; its fingerprint differs.

    Instructions that no cap speaks of (FMA, AES, …) stay.
    """
    kept = frozenset(
        name
        for name in hardware.features
        if name in cap.extensions or not name.startswith(_NEWER_THAN_AVX2)
    )
    name = f"{hardware.model_name}, capped to {cap.isa}"
    return replace(hardware, model_name=name, features=kept)


def has_cap(hardware: Hardware, cap: Cap) -> bool:
    """Say whether a CPU has every instruction of a cap."""
    return cap.needed <= hardware.features


def vector_extensions(hardware: Hardware) -> tuple[str, ...]:
    """Return the extensions that caps speak of, as far as a CPU has them, sorted."""
    known = {"avx2"}.union(*(cap.extensions for cap in CAPS.values()))
    return tuple(sorted(known & hardware.features))
