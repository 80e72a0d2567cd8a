"""x86 CPUs, as data; sources of each row in its last column, explained in `cpu.SOURCES`.

Only what Linux prints in `/proc/cpuinfo` is listed: Linux 6.12 knows AMX-FP16 (Granite Rapids) and
does not print it, and does not know AVX-VNNI-INT8 (Sierra Forest, Arrow Lake, Lunar Lake).
"""

from __future__ import annotations

from targets.hardware.cpu import CpuProfile

_V3 = frozenset({"sse4_2", "popcnt", "avx", "avx2", "fma", "f16c", "bmi2"})
_V4 = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
_AVX512_VNNI = _V4 | {"avx512_vnni"}
_AVX512_BF16 = _AVX512_VNNI | {"avx512_bf16"}
_AVX_VNNI = _V3 | {"avx_vnni"}
_AMX = _AVX512_BF16 | {"avx_vnni", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16"}

_PAIRS = "no VNNI: VPMADDUBSW adds pairs of U8S8 products with saturation at 16 bits"
_VNNI_INT8 = "AVX-VNNI-INT8 too, which Linux 6.12 does not print"


def _intel(
    name: str,
    microarchitecture: str,
    features: frozenset[str],
    sources: str = "linux llvm",
    *,
    aliases: str = "",
    qemu_model: str | None = None,
    note: str = "",
) -> CpuProfile:
    """Build a row of Intel's; `sources` and `aliases` are separated by blanks."""
    return CpuProfile(
        name=name,
        microarchitecture=microarchitecture,
        vendor="GenuineIntel",
        architecture="x86_64",
        features=features,
        sources=tuple(sources.split()),
        aliases=tuple(aliases.split()),
        qemu_model=qemu_model,
        note=note,
    )


def _amd(
    name: str,
    features: frozenset[str],
    *,
    aliases: str,
    qemu_model: str | None = None,
    note: str = "",
) -> CpuProfile:
    return CpuProfile(
        name=name,
        microarchitecture=name,
        vendor="AuthenticAMD",
        architecture="x86_64",
        features=features,
        sources=("linux", "llvm", "archspec", *(["qemu"] if qemu_model else [])),
        aliases=tuple(aliases.split()),
        qemu_model=qemu_model,
        note=note,
    )


_INTEL_SERVERS = (
    _intel(
        "haswell",
        "haswell",
        _V3,
        "linux llvm archspec qemu",
        qemu_model="Haswell-noTSX",
        note=_PAIRS,
    ),
    _intel(
        "broadwell",
        "broadwell",
        _V3,
        "linux llvm archspec qemu",
        qemu_model="Broadwell-noTSX",
        note=_PAIRS,
    ),
    _intel(
        "skylake-server",
        "skylake_avx512",
        _V4,
        "linux llvm archspec",
        aliases="skylake-x skylake-avx512",
        note=_PAIRS,
    ),
    _intel("cascade-lake", "cascadelake", _AVX512_VNNI, "linux llvm archspec"),
    _intel("cooper-lake", "cooperlake", _AVX512_BF16),
    _intel(
        "ice-lake-server",
        "icelake_server",
        _AVX512_VNNI,
        "linux llvm archspec",
        aliases="ice-lake icelake",
    ),
    _intel(
        "sapphire-rapids",
        "sapphirerapids",
        _AMX,
        "linux llvm archspec",
        note="archspec lists neither avx_vnni nor avx512_fp16",
    ),
    _intel("emerald-rapids", "emeraldrapids", _AMX),
    _intel(
        "granite-rapids",
        "graniterapids",
        _AMX,
        note="AMX-FP16 too, which Linux 6.12 does not print",
    ),
    _intel("sierra-forest", "sierraforest", _AVX_VNNI, note=_VNNI_INT8),
    _intel("clearwater-forest", "clearwaterforest", _AVX_VNNI, note=_VNNI_INT8),
)
_INTEL_CLIENTS = (
    _intel(
        "skylake",
        "skylake",
        _V3,
        "linux llvm archspec qemu",
        aliases="kaby-lake coffee-lake comet-lake",
        qemu_model="Skylake-Client-noTSX-IBRS",
        note=_PAIRS,
    ),
    _intel("ice-lake-client", "icelake_client", _AVX512_VNNI),
    _intel("tiger-lake", "tigerlake", _AVX512_VNNI),
    _intel("rocket-lake", "rocketlake", _AVX512_VNNI),
    _intel("alder-lake", "alderlake", _AVX_VNNI, "linux llvm archspec"),
    _intel("gracemont", "gracemont", _AVX_VNNI, aliases="alder-lake-n intel-n100"),
    _intel("raptor-lake", "raptorlake", _AVX_VNNI),
    _intel("meteor-lake", "meteorlake", _AVX_VNNI),
    _intel("arrow-lake", "arrowlake", _AVX_VNNI, "linux llvm archspec", note=_VNNI_INT8),
    _intel("lunar-lake", "lunarlake", _AVX_VNNI, note=_VNNI_INT8),
)
_AMD = (
    _amd("zen", _V3, aliases="zen1 epyc-naples", qemu_model="EPYC", note=_PAIRS),
    _amd("zen2", _V3, aliases="epyc-rome", qemu_model="EPYC-Rome", note=_PAIRS),
    _amd("zen3", _V3, aliases="epyc-milan", qemu_model="EPYC-Milan", note=_PAIRS),
    _amd("zen4", _AVX512_BF16, aliases="epyc-genoa epyc-bergamo"),
    _amd("zen5", _AVX512_BF16 | {"avx_vnni"}, aliases="epyc-turin"),
)

X86_CPUS: tuple[CpuProfile, ...] = (*_INTEL_SERVERS, *_INTEL_CLIENTS, *_AMD)
"""Oldest first within a family."""
