"""`local:<instruction set>`: names, refusals, labels, and what the runner is given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from targets.contract import Device, Hardware
from targets.devices.capped import CappedDevice
from targets.errors import ConfigError, ExitCode, UsageError
from targets.hardware.caps import CAPS
from targets.registry import device_names, open_device

CORE = {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
CASCADE_LAKE = Hardware(
    architecture="x86_64",
    vendor="GenuineIntel",
    model_name="Some Xeon",
    microarchitecture="cascadelake",
    features=frozenset({"avx", "avx2", "fma", "avx512_vnni", *CORE}),
    num_cores=2,
    memory_bytes=1 << 30,
)
GRAVITON = replace(
    CASCADE_LAKE,
    architecture="aarch64",
    model_name="Some ARM",
    features=frozenset({"asimd", "asimddp"}),
)


@pytest.fixture
def run_on(monkeypatch: pytest.MonkeyPatch):
    """Be another machine; the only one here cannot be changed."""

    def become(hardware: Hardware) -> None:
        monkeypatch.setattr("targets.hardware.detect.detect_hardware", lambda: hardware)

    become(CASCADE_LAKE)
    return become


def test_a_capped_device_keeps_the_contract(run_on):
    device = open_device("local:avx2")
    assert isinstance(device, Device)
    assert isinstance(device, CappedDevice)
    assert device.name == "local:avx2"
    assert device.measures_latency
    assert device.hardware().model_name == "Some Xeon, capped to AVX2"
    assert device.hardware().features == {"avx", "avx2", "fma"}


def test_the_plain_device_is_not_capped(run_on):
    assert open_device("local").hardware() == CASCADE_LAKE


@pytest.mark.parametrize(
    ("alias", "name"), [("avx512", "avx512_core"), ("avx512_vnni", "avx512_core_vnni")]
)
def test_shorter_names_are_the_same_device(run_on, alias, name):
    assert open_device(f"local:{alias}").name == f"local:{name}"
    assert open_device(f"local:{alias}").hardware() == open_device(f"local:{name}").hardware()


@pytest.mark.parametrize(
    ("cap", "lacks", "has", "possible"),
    [
        ("avx2_vnni", "avx_vnni", "avx512_vnni", "local:avx2, local:avx512_core"),
        ("avx512_core_bf16", "avx512_bf16", "avx512vl", "local:avx512_core_vnni"),
        ("amx", "amx_bf16, amx_int8, amx_tile", "avx512_vnni", "local:avx512_core_vnni"),
    ],
)
def test_a_cap_that_the_cpu_lacks_is_refused(run_on, cap, lacks, has, possible):
    with pytest.raises(ConfigError) as caught:
        open_device(f"local:{cap}")
    assert lacks in caught.value.what
    assert has in caught.value.why
    assert possible in caught.value.hint
    assert caught.value.exit_code == ExitCode.USAGE


def test_other_architectures_have_no_caps(run_on):
    run_on(GRAVITON)
    with pytest.raises(ConfigError) as caught:
        open_device("local:avx2")
    assert "lacks avx2" in caught.value.what
    assert "aarch64" in caught.value.why
    assert "none of these extensions" in caught.value.why
    assert caught.value.hint == "possible here: local only"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("local:avx", "avx2"),
        ("local:AVX2", "avx2"),
        ("local:avx512_vni", "avx512_vnni"),
        ("local:avx512_core_vnii", "avx512_core_vnni"),
        ("local:avx2-vnni", "avx2_vnni"),
    ],
)
def test_an_unknown_cap_names_the_nearest(run_on, name, nearest):
    with pytest.raises(ConfigError) as caught:
        open_device(name)
    assert repr(name) in caught.value.what
    assert f"the nearest first: {nearest}," in caught.value.why
    assert caught.value.hint.endswith(f"local:{nearest}")


@pytest.mark.parametrize("name", ["local:", "local: avx2", "local:avx2:avx2"])
def test_half_a_name_is_refused(run_on, name):
    with pytest.raises(ConfigError, match="unknown instruction set"):
        open_device(name)


def test_an_unknown_device_lists_capped_ones_too(run_on):
    with pytest.raises(UsageError) as caught:
        open_device("locl:avx2")
    assert "known devices: local:avx2, " in caught.value.why
    capped = tuple(f"local:{name}" for name in CAPS)
    assert device_names()[: 2 + len(CAPS)] == ("local", "local:cuda", *capped)


def test_the_runner_is_capped_and_says_that_its_latency_is_relative(run_on, start, monkeypatch):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_AMX")  # the cap wins over the caller's
    runner = start(device=CappedDevice("avx512"))
    environment = Path(f"/proc/{runner.pid}/environ").read_bytes().split(b"\0")
    assert b"ONEDNN_MAX_CPU_ISA=AVX512_CORE" in environment
    (warning,) = runner.info().warnings
    assert warning.startswith("capped to AVX512_CORE: latency is relative only")


def test_the_plain_runner_does_not_say_so(start):
    assert start().info().warnings == ()


def test_the_runners_own_warnings_follow(run_on, start):
    warnings = start(device=CappedDevice("avx2"), options={"hint": "bf16"}).info().warnings
    assert [warning.split(":")[0] for warning in warnings] == [
        "capped to AVX2",
        "hint=bf16 was asked for, the runtime uses f32",
    ]
