"""What others say of the CPUs in the table, carried along so that no test needs them installed.

Copied by hand from the sources that `targets.hardware.cpu.SOURCES` names; only the features in
`TELLING` were looked at. A name stands for the table's row.
"""

from __future__ import annotations


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


TELLING = words(
    "asimdhp asimddp asimdfhm i8mm bf16 sve sve2 sme avx2 fma avx512f avx512_vnni avx512_bf16 "
    "avx512_fp16 avx_vnni amx_int8 amx_bf16"
)

_DOTPROD = "asimdhp asimddp"
_I8MM = "asimdhp asimddp asimdfhm i8mm bf16"
_SVE = f"{_I8MM} sve"
_SVE2 = f"{_SVE} sve2"
_V3 = "avx2 fma"
_VNNI = f"{_V3} avx512f avx512_vnni"
_AVX_VNNI = f"{_V3} avx_vnni"
_BF16 = f"{_VNNI} avx512_bf16"
_AMX = f"{_BF16} avx512_fp16 avx_vnni amx_int8 amx_bf16"

ARCHSPEC_0_2_7 = {
    "cortex-a72": "",
    "neoverse-n1": _DOTPROD,
    "neoverse-n2": _SVE2,
    "neoverse-v1": _SVE,
    "neoverse-v2": _SVE2,
    "apple-m1": f"{_DOTPROD} asimdfhm",
    "apple-m2": _I8MM,
    "apple-m3": _I8MM,
    "apple-m4": f"{_I8MM} sme",
    "ampereone": _I8MM,
    "a64fx": "asimdhp sve",
    "haswell": _V3,
    "broadwell": _V3,
    "skylake": _V3,
    "skylake-server": f"{_V3} avx512f",
    "cascade-lake": _VNNI,
    "ice-lake-server": _VNNI,
    "sapphire-rapids": f"{_BF16} amx_int8 amx_bf16",
    "alder-lake": _AVX_VNNI,
    "arrow-lake": _AVX_VNNI,
    "zen": _V3,
    "zen2": _V3,
    "zen3": _V3,
    "zen4": _BF16,
    "zen5": f"{_BF16} avx_vnni",
}
"""archspec 0.2.7, `microarchitectures.json`, features of a row and of all it descends from."""

LLVM = {
    **dict.fromkeys(["cortex-a35", "cortex-a53", "cortex-a57", "cortex-a72", "cortex-a73"], ""),
    **dict.fromkeys(["cortex-a55", "cortex-a75", "cortex-a76", "cortex-a77"], _DOTPROD),
    **dict.fromkeys(["cortex-a78", "cortex-a78ae", "cortex-a78c"], _DOTPROD),
    **dict.fromkeys(["cortex-x1", "cortex-x1c", "neoverse-n1"], _DOTPROD),
    **dict.fromkeys(["cortex-a510", "cortex-a520", "cortex-a710", "cortex-a715"], _SVE2),
    **dict.fromkeys(["cortex-a720", "cortex-a725", "cortex-x2", "cortex-x3"], _SVE2),
    **dict.fromkeys(["cortex-x4", "cortex-x925", "neoverse-n2", "neoverse-n3"], _SVE2),
    **dict.fromkeys(["neoverse-v2", "neoverse-v3"], _SVE2),
    "neoverse-v1": _SVE,
    "apple-m1": f"{_DOTPROD} asimdfhm",
    "apple-m2": _I8MM,
    "apple-m3": _I8MM,
    "apple-m4": f"{_I8MM} sme",
    "ampereone": "asimdhp asimddp i8mm bf16",
    "oryon": _I8MM,
    "a64fx": "asimdhp sve",
    **dict.fromkeys(["haswell", "broadwell", "skylake", "zen", "zen2", "zen3"], _V3),
    "skylake-server": f"{_V3} avx512f",
    **dict.fromkeys(["cascade-lake", "ice-lake-server", "ice-lake-client"], _VNNI),
    **dict.fromkeys(["tiger-lake", "rocket-lake"], _VNNI),
    **dict.fromkeys(["cooper-lake", "zen4"], _BF16),
    **dict.fromkeys(["sapphire-rapids", "emerald-rapids", "granite-rapids"], _AMX),
    **dict.fromkeys(["sierra-forest", "clearwater-forest", "gracemont", "alder-lake"], _AVX_VNNI),
    **dict.fromkeys(["raptor-lake", "meteor-lake", "arrow-lake", "lunar-lake"], _AVX_VNNI),
    "zen5": f"{_BF16} avx_vnni",
}
"""LLVM's processors as Zig 0.17.1 ships them, `lib/std/Target/aarch64.zig` and `x86.zig`."""

QEMU_10_0_2 = {
    **dict.fromkeys(["cortex-a35", "cortex-a53", "cortex-a57", "cortex-a72"], ""),
    **dict.fromkeys(["cortex-a55", "cortex-a76", "neoverse-n1"], _DOTPROD),
    **dict.fromkeys(["cortex-a710", "neoverse-n2"], _SVE2),
    "neoverse-v1": _SVE,
    "a64fx": "asimdhp sve",
    **dict.fromkeys(["haswell", "broadwell", "skylake", "zen", "zen2", "zen3"], _V3),
}
"""Features that programs find under `qemu-aarch64 -cpu MODEL` and `qemu-x86_64 -cpu MODEL`."""

QEMU_10_0_2_MODELS = words(
    "cortex-a35 cortex-a53 cortex-a55 cortex-a57 cortex-a710 cortex-a72 cortex-a76 a64fx "
    "neoverse-n1 neoverse-n2 neoverse-v1 "
    "Haswell-noTSX Broadwell-noTSX Skylake-Client-noTSX-IBRS EPYC EPYC-Rome EPYC-Milan"
)
"""Out of `-cpu help` those that user mode runs whole."""

LINUX_6_12 = {
    "cortex-a53": "0x41/0xd03",
    "cortex-a55": "0x41/0xd05",
    "cortex-a72": "0x41/0xd08",
    "cortex-a76": "0x41/0xd0b",
    "cortex-a78": "0x41/0xd41",
    "cortex-a510": "0x41/0xd46",
    "cortex-a710": "0x41/0xd47",
    "cortex-a715": "0x41/0xd4d",
    "cortex-a720": "0x41/0xd81",
    "cortex-x1": "0x41/0xd44",
    "cortex-x2": "0x41/0xd48",
    "cortex-x3": "0x41/0xd4e",
    "cortex-x4": "0x41/0xd82",
    "neoverse-n1": "0x41/0xd0c",
    "neoverse-n2": "0x41/0xd49",
    "neoverse-v1": "0x41/0xd40",
    "neoverse-v2": "0x41/0xd4f",
    "apple-m1": "0x61/0x029",
    "apple-m2": "0x61/0x038",
    "ampereone": "0xc0/0xac3",
    "haswell": "6/63",
    "broadwell": "6/79",
    "skylake-server": "6/85",
    "cascade-lake": "6/85",
    "ice-lake-server": "6/106",
    "sapphire-rapids": "6/143",
    "emerald-rapids": "6/207",
    "granite-rapids": "6/173",
    "alder-lake": "6/151",
    "sierra-forest": "6/175",
    "clearwater-forest": "6/221",
}
"""Linux 6.12, `cputype.h` and `intel-family.h`: one number of each row."""

KERNEL_NAMES = words(
    "fp asimd fphp asimdhp asimdrdm asimddp asimdfhm i8mm bf16 sve sve2 svei8mm svebf16 sme sme2 "
    "sse4_2 popcnt avx avx2 fma f16c bmi2 avx512f avx512bw avx512cd avx512dq avx512vl "
    "avx512_vnni avx512_bf16 avx512_fp16 avx_vnni amx_tile amx_int8 amx_bf16"
)
"""How `/proc/cpuinfo` of Linux 6.12 spells what the table speaks of."""
