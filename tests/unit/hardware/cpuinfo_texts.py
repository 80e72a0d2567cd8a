"""What `/proc/cpuinfo` says on real machines; like cores and long lists are shortened."""

from __future__ import annotations

ARMV8_0 = "fp asimd evtstrm crc32 cpuid"
ARMV8_2 = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop "
    "asimddp"
)
ARMV8_4 = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt fcma "
    "lrcpc dcpop sha3 asimddp sha512 asimdfhm dit uscat ilrcpc flagm ssbs"
)
GRAVITON_3 = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt fcma "
    "lrcpc dcpop sha3 sm3 sm4 asimddp sha512 sve asimdfhm dit uscat ilrcpc flagm ssbs paca pacg "
    "dcpodp svei8mm svebf16 i8mm bf16 dgh rng"
)
PHONE = f"{ARMV8_4} sb paca pacg dcpodp flagm2 frint i8mm bf16 bti"


def arm_core(index: int, part: int, features: str, implementer: int = 0x41) -> str:
    return f"""\
processor\t: {index}
BogoMIPS\t: 108.00
Features\t: {features}
CPU implementer\t: 0x{implementer:02x}
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0x{part:03x}
CPU revision\t: 3

"""


RASPBERRY_PI_4 = (
    "".join(arm_core(index, 0xD08, ARMV8_0) for index in range(4))
    + """\
Revision\t: c03111
Serial\t\t: 0000000000000000
Model\t\t: Raspberry Pi 4 Model B Rev 1.1
"""
)
GRAVITON_2 = "".join(arm_core(index, 0xD0C, f"{ARMV8_2} ssbs") for index in range(2))
GRAVITON_3_TEXT = "".join(arm_core(index, 0xD40, GRAVITON_3) for index in range(2))
APPLE_M1 = "".join(
    arm_core(index, part, f"{ARMV8_4} sb paca pacg dcpodp flagm2 frint", 0x61)
    for index, part in enumerate((0x022, 0x022, 0x023, 0x023))
)
SNAPDRAGON_8_GEN_2 = "".join(
    arm_core(index, part, PHONE) for index, part in enumerate((0xD46, 0xD4D, 0xD47, 0xD4E))
)
"""Its firmware hides SVE and SVE2, which all four kinds of core have."""

_X86_64 = (
    "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse "
    "sse2 ht syscall nx pdpe1gb rdtscp lm constant_tsc nopl pni pclmulqdq ssse3 fma cx16 sse4_1 "
    "sse4_2 x2apic movbe popcnt aes xsave avx f16c rdrand hypervisor lahf_lm abm fsgsbase bmi1 "
    "avx2 smep bmi2 erms"
)
_AVX512 = f"{_X86_64} avx512f avx512dq rdseed adx smap avx512cd avx512bw avx512vl"
_SPR = (
    f"{_AVX512} avx512ifma clwb sha_ni xsaveopt xsavec avx_vnni avx512_bf16 avx512vbmi umip "
    "avx512_vbmi2 gfni vaes vpclmulqdq avx512_vnni avx512_bitalg avx512_vpopcntdq avx512_fp16"
)


def x86_core(
    index: int, model_name: str, flags: str, model: int, family: int = 6, amd: bool = False
) -> str:
    vendor = "AuthenticAMD" if amd else "GenuineIntel"
    return f"""\
processor\t: {index}
vendor_id\t: {vendor}
cpu family\t: {family}
model\t\t: {model}
model name\t: {model_name}
stepping\t: 2
microcode\t: 0x1
cpu MHz\t\t: 2300.000
flags\t\t: {flags}
bugs\t\t: spectre_v1 spectre_v2
address sizes\t: 46 bits physical, 48 bits virtual

"""


HASWELL = x86_core(0, "Intel(R) Xeon(R) CPU E5-2680 v3 @ 2.50GHz", _X86_64, 63)
SAPPHIRE_RAPIDS = x86_core(
    0, "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", f"{_SPR} amx_bf16 amx_tile amx_int8", 143
)
SAPPHIRE_RAPIDS_WITHOUT_AMX = x86_core(
    0, "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", _SPR, 143
)
"""A hypervisor that hides AMX."""
ZEN_4 = x86_core(
    0,
    "AMD EPYC 9R14",
    f"{_AVX512} avx512ifma sha_ni avx512_bf16 clzero avx512vbmi avx512_vbmi2 gfni vaes vpclmulqdq "
    "avx512_vnni avx512_bitalg avx512_vpopcntdq",
    17,
    family=25,
    amd=True,
)
