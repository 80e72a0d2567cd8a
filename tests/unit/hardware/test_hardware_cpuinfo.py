"""Hardware from another machine's `/proc/cpuinfo`: names from numbers, abilities from flags."""

from __future__ import annotations

from pathlib import Path

import cpuinfo_texts as texts
import pytest

from targets.contract import Hardware
from targets.hardware import detect
from targets.hardware.detect import hardware_from_cpuinfo, parse_cpuinfo
from targets.hardware.precisions import accelerated, accelerated_precisions
from targets.hardware.profiles import cpu_profile


def read(text: str, architecture: str = "aarch64", board: str = "") -> Hardware:
    return hardware_from_cpuinfo(
        text, architecture=architecture, num_cores=4, memory_bytes=1 << 33, board=board
    )


@pytest.mark.parametrize(
    ("text", "architecture", "name"),
    [
        (texts.RASPBERRY_PI_4, "aarch64", "raspberry-pi-4"),
        (texts.GRAVITON_2, "aarch64", "graviton2"),
        (texts.GRAVITON_3_TEXT, "aarch64", "graviton3"),
        (texts.APPLE_M1, "arm64", "apple-m1"),
        (texts.HASWELL, "x86_64", "haswell"),
        (texts.SAPPHIRE_RAPIDS, "AMD64", "sapphire-rapids"),
        (texts.ZEN_4, "x86_64", "zen4"),
    ],
)
def test_a_machine_is_the_row_of_the_table(text, architecture, name):
    found, row = read(text, architecture), cpu_profile(name)
    assert found.microarchitecture == row.microarchitecture
    assert (found.vendor, found.architecture) == (row.vendor, row.architecture)
    assert row.features <= found.features
    assert accelerated_precisions(found) == accelerated_precisions(row.hardware(4, 1))
    assert (found.num_cores, found.memory_bytes) == (4, 1 << 33)


@pytest.mark.parametrize(
    ("text", "architecture", "precision", "instruction"),
    [
        (texts.RASPBERRY_PI_4, "aarch64", "int8", None),
        (texts.GRAVITON_2, "aarch64", "int8", "SDOT"),
        (texts.GRAVITON_3_TEXT, "aarch64", "int8", "SMMLA"),
        (texts.GRAVITON_3_TEXT, "aarch64", "bfloat16", "BFMMLA"),
        (texts.APPLE_M1, "aarch64", "bfloat16", None),
        (texts.HASWELL, "x86_64", "int8", None),
        (texts.ZEN_4, "x86_64", "int8", "AVX512-VNNI"),
        (texts.SAPPHIRE_RAPIDS, "x86_64", "bfloat16", "TDPBF16PS"),
    ],
)
def test_flags_say_what_backs_a_precision(text, architecture, precision, instruction):
    found = accelerated(read(text, architecture), precision)
    assert (instruction in found) if instruction else found is None


def test_live_flags_win_over_the_table():
    """The name promises AMX, the hypervisor hides it."""
    hidden = read(texts.SAPPHIRE_RAPIDS_WITHOUT_AMX, "x86_64")
    assert hidden.microarchitecture == "sapphirerapids"
    assert "amx_int8" in cpu_profile("sapphirerapids").features
    assert "amx_int8" not in hidden.features
    assert "VNNI" in accelerated(hidden, "int8")
    assert hidden.fingerprint != read(texts.SAPPHIRE_RAPIDS, "x86_64").fingerprint


def test_a_phone_has_what_its_firmware_shows():
    found = read(texts.SNAPDRAGON_8_GEN_2)
    assert found.microarchitecture == "cortex_a510+cortex_a715+cortex_a710+cortex_x3"
    assert "sve2" in cpu_profile("snapdragon-8-gen-2").features
    assert "sve2" not in found.features
    assert "SMMLA" in accelerated(found, "int8")


@pytest.mark.parametrize(
    ("text", "board", "name"),
    [
        (texts.RASPBERRY_PI_4, "", "Raspberry Pi 4 Model B Rev 1.1"),
        (texts.RASPBERRY_PI_4, "Another board", "Another board"),
        (texts.GRAVITON_3_TEXT, "", "neoverse_v1"),
    ],
)
def test_a_board_s_name_comes_from_its_own_machine(text, board, name, tmp_path, monkeypatch):
    ours = tmp_path / "model"
    ours.write_text("The board these tests run on\0")
    monkeypatch.setattr(detect, "_BOARD", ours)
    assert read(text, board=board).model_name == name


def test_this_machine_s_board_is_read_for_this_machine_only(tmp_path, monkeypatch):
    cpuinfo, board = tmp_path / "cpuinfo", tmp_path / "model"
    cpuinfo.write_text(texts.GRAVITON_2)
    board.write_text("The board these tests run on\0")
    monkeypatch.setattr(detect, "_BOARD", board)
    monkeypatch.setattr(detect, "CPUINFO", Path(cpuinfo))
    monkeypatch.setattr(detect.platform, "machine", lambda: "aarch64")
    assert detect.detect_hardware().model_name == "The board these tests run on"


def test_a_text_and_its_lines_are_read_alike():
    for text, architecture in ((texts.APPLE_M1, "aarch64"), (texts.ZEN_4, "x86_64")):
        cpu = parse_cpuinfo(text.splitlines(keepends=True), architecture)
        found = read(text, architecture)
        assert (cpu.model_name, cpu.features) == (found.model_name, found.features)


@pytest.mark.parametrize("architecture", ["aarch64", "x86_64", "riscv64"])
def test_no_text_is_no_features(architecture):
    assert read("", architecture).features == frozenset()
