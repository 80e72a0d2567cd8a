"""`emulated:<cpu>`: names, refusals, and that nobody ever gets a latency."""

from __future__ import annotations

import sys

import pytest

from targets.contract import TokenSequences, Workload
from targets.devices.catalogue import set_up_device
from targets.devices.emulated import MAX, EmulatedDevice, EmulatedRunner, device_names, emulated_cpu
from targets.devices.process import LineProcess
from targets.devices.userland import devices_root
from targets.errors import ConfigError, DeviceError, NotInstalledError, UsageError
from targets.hardware.profiles import cpu_profile
from targets.registry import device_names as all_device_names
from targets.registry import open_device

MANY = ("cortex-a72", "cortex-a76", "neoverse-n1", "neoverse-v1", "max", "haswell", "zen2")


@pytest.mark.parametrize("name", MANY)
def test_known_cpus_can_be_emulated(name):
    row, model = emulated_cpu(name)
    assert row.name == name
    assert model
    assert f"emulated:{name}" in device_names()
    assert set(device_names()) < set(all_device_names())


def test_an_alias_is_the_same_cpu():
    assert emulated_cpu("graviton2") == emulated_cpu("neoverse-n1")
    assert "emulated:graviton2" not in device_names()


@pytest.mark.parametrize("name", ["skylake-server", "sapphire-rapids", "zen4", "alder-lake"])
def test_what_qemu_would_silently_cut_down_is_refused(name):
    with pytest.raises(ConfigError, match=f"'emulated:{name}' cannot be emulated") as caught:
        emulated_cpu(name)
    assert "would run as an AVX2 CPU" in caught.value.why
    assert any(one in caught.value.why for one in ("avx512f", "avx_vnni"))
    assert "emulated:haswell" in caught.value.hint
    assert f"emulated:{name}" not in device_names()


def test_no_x86_cpu_on_offer_has_more_than_qemu():
    names = [name.partition(":")[2] for name in device_names()]
    for name in names:
        row = MAX if name == "max" else cpu_profile(name)
        if row.architecture == "x86_64":
            assert not [
                one for one in row.features if one.startswith(("avx512", "avx_vnni", "amx"))
            ]


def test_a_cpu_that_qemu_does_not_know_is_refused():
    with pytest.raises(ConfigError) as caught:
        open_device("emulated:cortex-a78")
    assert caught.value.why == "QEMU 10 has no model of cortex-a78"


@pytest.mark.parametrize("name", ["emulated:cortex-a73x", "emulated:", "emulated:neoverse"])
def test_an_unknown_cpu_names_the_nearest(name):
    with pytest.raises(ConfigError, match="unknown CPU"):
        open_device(name)


def test_the_environment_says_where_devices_lie(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDDING_EXPORTER_DEVICES", str(tmp_path / "there"))
    assert devices_root() == tmp_path / "there"
    with pytest.raises(NotInstalledError, match="emulated:cortex-a72 is not set up") as caught:
        open_device("emulated:raspberry-pi-4")
    assert caught.value.hint == "exporter devices setup emulated:cortex-a72"
    monkeypatch.delenv("EMBEDDING_EXPORTER_DEVICES")
    monkeypatch.setenv("EMBEDDING_EXPORTER_CACHE", str(tmp_path))
    assert devices_root() == tmp_path / "devices"


@pytest.mark.parametrize("name", ["local", "local:avx2", "ssh://somebody@somewhere"])
def test_other_devices_need_no_set_up(name):
    assert set_up_device(name) is None


@pytest.mark.parametrize("name", ["toaster:4", "neoverse-n1", ""])
def test_setting_up_something_else_is_refused(name):
    with pytest.raises(UsageError, match="unknown device"):
        set_up_device(name)


@pytest.mark.parametrize(
    "workload",
    [
        Workload(name="1x16", kind="shape", sequence_length=16),
        Workload(name="mix", kind="single", tokens=TokenSequences.from_lists([[5]], 0)),
    ],
)
def test_a_runner_under_emulation_is_never_timed(tmp_path, workload):
    """The process hears nothing of it: this one would answer no request."""
    command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    process = LineProcess(command, tmp_path, {})
    with (
        EmulatedRunner(process, tmp_path, "emulated", 1.0) as runner,
        pytest.raises(DeviceError, match=f"{workload.name}: no latency") as caught,
    ):
        runner.time(workload, 1)
    assert "ssh://" in caught.value.hint


def test_the_class_says_that_it_measures_no_latency():
    assert EmulatedDevice.measures_latency is False
