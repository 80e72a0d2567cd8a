from __future__ import annotations

from importlib.metadata import version

import pytest

from targets.devices.ssh_facts import older_runtimes, select_distributions, to_hardware

ARM_CORE = """\
processor\t: {number}
Features\t: fp asimd asimdhp asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: {part}

"""
FACTS = {
    "architecture": "aarch64",
    "system": "Linux",
    "cpuinfo": "".join(ARM_CORE.format(number=n, part="0xd0b") for n in range(4)),
    "sysctl": "",
    "board": "Raspberry Pi 5 Model B Rev 1.0",
    "num_cores": 4,
    "memory_bytes": 8 << 30,
}


def test_an_arm_board_is_what_it_says_and_not_this_machine():
    hardware = to_hardware(FACTS)
    assert hardware.model_name == "Raspberry Pi 5 Model B Rev 1.0"
    assert (hardware.architecture, hardware.vendor) == ("aarch64", "ARM")
    assert hardware.features == {"fp", "asimd", "asimdhp", "asimddp"}
    assert (hardware.num_cores, hardware.memory_bytes) == (4, 8 << 30)


def test_another_core_is_another_fingerprint():
    other = FACTS | {"cpuinfo": ARM_CORE.format(number=0, part="0xd08"), "board": ""}
    assert to_hardware(other).fingerprint != to_hardware(FACTS).fingerprint
    assert to_hardware(other).microarchitecture != to_hardware(FACTS).microarchitecture


def test_a_mac_is_read_from_sysctl():
    said = "machdep.cpu.brand_string: Apple M2 Pro\nhw.optional.arm.FEAT_DotProd: 1\n"
    facts = FACTS | {"system": "Darwin", "architecture": "arm64", "cpuinfo": "", "sysctl": said}
    hardware = to_hardware(facts)
    assert (hardware.architecture, hardware.model_name) == ("aarch64", "Apple M2 Pro")
    assert hardware.features == {"asimddp"}


def test_distributions_are_found_however_they_are_spelled():
    installed = {"Tokenizers_Fast": "1.0", "numpy": "2.0"}
    found = select_distributions(installed, ("tokenizers-fast", "NumPy", "absent"))
    assert found == {"tokenizers-fast": "1.0", "NumPy": "2.0"}


@pytest.mark.parametrize("there", ["0.1", "1.9.9-build-7", "1"])
def test_an_older_runtime_is_told(there):
    (warning,) = older_runtimes({"onnx": there, "python": "3.8", "system": "Linux 4"})
    assert f"onnx is {there} on the device and {version('onnx')} here" in warning


@pytest.mark.parametrize("name", ["onnx", "a-runtime-nobody-has", "numpy", "python"])
def test_equal_newer_and_foreign_runtimes_are_not(name):
    here = version("onnx")
    assert older_runtimes({name: here}) == ()
    assert older_runtimes({name: f"{here}-build-7"}) == ()
    assert older_runtimes({name: "9999.0"}) == ()
