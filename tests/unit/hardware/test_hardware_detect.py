"""What CPUs say of themselves, read."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from targets.hardware.detect import (
    CPUINFO,
    detect_hardware,
    normalize_architecture,
    parse_cpuinfo,
    usable_cores,
)
from targets.hardware.fallback import parse_py_cpuinfo, parse_sysctl

ROOT = Path(__file__).parents[3]


def x86_block(model: int, flags: str, family: int = 6, vendor: str = "GenuineIntel") -> str:
    return f"""\
processor\t: 0
vendor_id\t: {vendor}
cpu family\t: {family}
model\t\t: {model}
model name\t: A CPU: with a colon @ 2.00GHz
stepping\t: 2
flags\t\t: {flags}
bugs\t\t: spectre_v1

"""


def arm_block(implementer: int, part: int, features: str) -> str:
    return f"""\
processor\t: 0
BogoMIPS\t: 50.00
Features\t: {features}
CPU implementer\t: 0x{implementer:02x}
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: 0x{part:03x}

"""


def parse(text: str, architecture: str = "x86_64"):
    return parse_cpuinfo(text.splitlines(keepends=True), architecture)


V3 = "avx2 fma bmi2 f16c sse4_2 popcnt"
V4 = f"{V3} avx512f avx512bw avx512cd avx512dq avx512vl"


@pytest.mark.parametrize(
    ("model", "flags", "name"),
    [
        (207, V4, "emeraldrapids"),
        (143, V4, "sapphirerapids"),
        (173, V4, "graniterapids"),
        (106, V4, "icelake_server"),
        (108, V4, "icelake_server"),
        (85, V4, "skylake_avx512"),
        (85, f"{V4} avx512_vnni", "cascadelake"),
        (85, f"{V4} avx512_vnni avx512_bf16", "cooperlake"),
        (85, V3, "x86_64_v3"),
        (63, V3, "haswell"),
        (9999, V4, "x86_64_v4"),
        (9999, "sse4_2 popcnt", "x86_64_v2"),
        (9999, "sse2", "x86_64"),
    ],
)
def test_intel_models(model, flags, name):
    assert parse(x86_block(model, flags)).microarchitecture == name


@pytest.mark.parametrize(
    ("family", "model", "name"),
    [
        (0x17, 0x01, "zen"),
        (0x17, 0x31, "zen2"),
        (0x19, 0x21, "zen3"),
        (0x19, 0x11, "zen4"),
        (0x19, 0x61, "zen4"),
        (0x1A, 0x02, "zen5"),
        (0x1A, 0xFE, "x86_64_v3"),
        (0x15, 0x02, "x86_64_v3"),
    ],
)
def test_amd_models(family, model, name):
    cpu = parse(x86_block(model, V3, family=family, vendor="AuthenticAMD"))
    assert (cpu.vendor, cpu.microarchitecture) == ("AuthenticAMD", name)


def test_flags_win_over_the_model_number():
    """A hypervisor may hide AMX on a CPU whose model number promises it."""
    hidden = parse(x86_block(207, f"{V4} avx512_vnni"))
    shown = parse(x86_block(207, f"{V4} avx512_vnni amx_bf16"))
    assert hidden.microarchitecture == shown.microarchitecture == "emeraldrapids"
    assert "amx_bf16" in shown.features
    assert "amx_bf16" not in hidden.features


def test_only_the_first_x86_core_is_read():
    def lines():
        yield from x86_block(207, V4).splitlines(keepends=True)
        raise AssertionError("the kernel was asked for more cores")

    assert parse_cpuinfo(lines(), "x86_64").model_name == "A CPU: with a colon @ 2.00GHz"


@pytest.mark.parametrize(
    ("implementer", "part", "vendor", "name"),
    [
        (0x41, 0xD08, "ARM", "cortex_a72"),
        (0x41, 0xD0C, "ARM", "neoverse_n1"),
        (0x41, 0xD4F, "ARM", "neoverse_v2"),
        (0xC0, 0xAC3, "Ampere", "ampere1"),
        (0x61, 0x022, "Apple", "m1"),
        (0x99, 0x123, "unknown", "arm_0x99_0x123"),
    ],
)
def test_arm_parts(implementer, part, vendor, name):
    cpu = parse(arm_block(implementer, part, "fp asimd asimddp"), "aarch64")
    assert (cpu.vendor, cpu.microarchitecture) == (vendor, name)
    assert cpu.features == {"fp", "asimd", "asimddp"}


def test_arm_cores_of_several_kinds_share_what_all_of_them_have():
    little = arm_block(0x41, 0xD05, "fp asimd asimdhp")
    big = arm_block(0x41, 0xD0B, "fp asimd asimdhp asimddp")
    cpu = parse(little * 2 + big * 2, "aarch64")
    assert cpu.microarchitecture == "cortex_a55+cortex_a76"
    assert cpu.features == {"fp", "asimd", "asimdhp"}


def test_an_arm_tail_without_a_core_is_no_core():
    tail = "Hardware\t: BCM2835\nModel\t\t: Raspberry Pi 4\n"
    cpu = parse(arm_block(0x41, 0xD08, "fp asimd") + tail, "aarch64")
    assert cpu.microarchitecture == "cortex_a72"
    assert cpu.features == {"fp", "asimd"}


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64", "riscv64"])
def test_an_empty_cpuinfo_gives_no_features(architecture):
    cpu = parse("", architecture)
    assert cpu.features == frozenset()
    assert cpu.microarchitecture == architecture


def test_damaged_numbers_do_not_stop_detection():
    text = x86_block(207, V3).replace(": 207", ": ?")
    assert parse(text).microarchitecture == "x86_64_v3"


def test_riscv():
    cpu = parse("processor\t: 0\nisa\t\t: rv64imafdc\nuarch\t\t: sifive,u74-mc\n", "riscv64")
    assert (cpu.model_name, cpu.microarchitecture) == ("sifive,u74-mc", "riscv64")


@pytest.mark.parametrize(
    ("machine", "name"),
    [("AMD64", "x86_64"), ("x86_64", "x86_64"), ("arm64", "aarch64"), ("riscv64", "riscv64")],
)
def test_architectures(machine, name):
    assert normalize_architecture(machine) == name


# ---------------------------------------------------------------------- other systems


def test_apple_silicon():
    cpu = parse_sysctl(
        "machdep.cpu.brand_string: Apple M2 Pro\n"
        "hw.optional.arm.FEAT_DotProd: 1\n"
        "hw.optional.arm.FEAT_I8MM: 1\n"
        "hw.optional.arm.FEAT_BF16: 1\n"
        "hw.optional.arm.FEAT_FP16: 1\n"
        "hw.optional.arm.FEAT_SME: 0\n"
    )
    assert (cpu.vendor, cpu.model_name, cpu.microarchitecture) == ("Apple", "Apple M2 Pro", "m2")
    assert cpu.features == {"asimddp", "i8mm", "bf16", "asimdhp"}


def test_intel_mac():
    cpu = parse_sysctl(
        "machdep.cpu.vendor: GenuineIntel\n"
        "machdep.cpu.brand_string: Intel(R) Core(TM) i9\n"
        "machdep.cpu.family: 6\n"
        "machdep.cpu.model: 158\n"
        "machdep.cpu.features: SSE4.2 AVX1.0 FMA POPCNT F16C\n"
        "machdep.cpu.leaf7_features: BMI2 AVX2\n"
    )
    assert cpu.microarchitecture == "kabylake"
    assert cpu.features >= {"avx", "avx2", "sse4_2", "fma"}


def test_sysctl_without_an_answer():
    assert parse_sysctl("").features == frozenset()


def test_py_cpuinfo_spellings():
    facts = {
        "vendor_id_raw": "GenuineIntel",
        "brand_raw": "Xeon",
        "family": 6,
        "model": 106,
        "flags": ["avx2", "avx512f", "avx512vnni", "avx512vbmi2"],
    }
    cpu = parse_py_cpuinfo(facts, "x86_64")
    assert cpu.microarchitecture == "icelake_server"
    assert {"avx512_vnni", "avx512_vbmi2"} <= cpu.features
    assert parse_py_cpuinfo({}, "aarch64").features == frozenset()


# ------------------------------------------------------------------------ this machine


def test_this_machine():
    hardware = detect_hardware()
    assert hardware.architecture == normalize_architecture(platform.machine())
    assert 1 <= hardware.num_cores <= (os.cpu_count() or 1)
    assert hardware.memory_bytes > 1 << 28
    assert hardware.fingerprint == detect_hardware().fingerprint


@pytest.mark.skipif(not CPUINFO.exists(), reason="Linux only")
def test_features_are_the_kernel_s():
    assert all(f" {name}" in CPUINFO.read_text() for name in detect_hardware().features)


@pytest.mark.skipif(sys.platform != "linux", reason="affinity is Linux's")
def test_cores_obey_affinity():
    program = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from targets.hardware.detect import usable_cores; print(usable_cores())"
    )
    assert run_child(program) == "1"
    assert usable_cores() == len(os.sched_getaffinity(0))


@pytest.mark.skipif(not CPUINFO.exists(), reason="Linux only")
def test_linux_does_without_the_slow_library():
    program = (
        "import sys; from targets.hardware.detect import detect_hardware; detect_hardware()\n"
        "print(sorted({'cpuinfo', 'psutil', 'subprocess'} & set(sys.modules)))"
    )
    assert run_child(program) == "[]"


def run_child(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.strip()
