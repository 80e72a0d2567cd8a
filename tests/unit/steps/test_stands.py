"""Which targets can run here."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from exporter.config import Settings
from exporter.steps import stands
from exporter.steps.stands import find_stands
from targets.contract import Availability, Hardware, TargetSpec
from targets.errors import ConfigError, DeviceError, NotInstalledError, UsageError


def target(name: str, ok: bool):
    spec = TargetSpec(
        name=name,
        vendor="v",
        runtime="r",
        precisions=("float32",),
        max_opset=20,
        artifact_kind="k",
        extra="extra-of-it",
    )
    found = Availability(ok=ok, missing=() if ok else ("its runtime is not there",))
    return SimpleNamespace(spec=spec, probe=lambda device: found)


@pytest.fixture
def known(monkeypatch):
    """Three targets: one works, one lacks its runtime, one is a broken plug-in."""

    def load(name):
        if name == "broken":
            raise NotInstalledError("target broken cannot be loaded", why="ImportError: boom")
        return target(name, ok=name == "works")

    monkeypatch.setattr(stands, "load_target", load)
    monkeypatch.setattr(stands, "target_names", lambda: ("works", "lacks", "broken"))
    monkeypatch.setattr(stands, "BUILT_IN", {"lacks": ""})


def found(*names: str):
    return find_stands(SimpleNamespace(settings=Settings(target=names)))


def test_all_takes_what_works_and_says_why_the_others_do_not(known):
    result = found("all")
    assert [stand.target.spec.name for stand in result.ready] == ["works"]
    reasons = {one.target: one.reason for one in result.not_run}
    assert "its runtime is not there" in reasons["lacks"]
    assert "boom" in reasons["broken"]
    assert {one.status for one in result.not_run} == {"not_run"}


@pytest.mark.parametrize(("name", "said"), [("lacks", "extra-of-it"), ("broken", "boom")])
def test_the_only_one_must_run(known, name, said):
    with pytest.raises(NotInstalledError) as raised:
        found(name)
    assert said in str(raised.value)


def test_a_target_must_be_named(known):
    with pytest.raises(UsageError, match="no target"):
        found()


def test_threads_default_to_the_device_s_cores(known):
    (stand,) = found("works").ready
    assert stand.num_threads == stand.hardware.num_cores


# ----------------------------------------------------------------- targets and devices

DEVICES = {
    "local": ("x86_64", ("server", "phone-runtime")),
    "emulated:arm": ("aarch64", ("phone-runtime",)),
    "ssh://board": ("aarch64", ("server", "phone-runtime")),
    "local:old": ("x86_64", ()),
}


def hardware_of(architecture: str) -> Hardware:
    return Hardware(
        architecture=architecture,
        vendor="v",
        model_name="m",
        microarchitecture="u",
        features=frozenset(),
        num_cores=2,
        memory_bytes=1,
    )


@pytest.fixture
def fleet(monkeypatch):
    """Two targets (one for any CPU, one for ARM), and devices that carry their runtimes or not."""

    def load(name):
        runtime, fits = {
            "anywhere": ("server", ("x86_64", "aarch64")),
            "arm-only": ("phone-runtime", ("aarch64",)),
        }[name]
        spec = replace(target(name, ok=True).spec, architectures=fits, extra=name)

        def probe(device):
            ok = runtime in DEVICES[device.name][1]
            return Availability(ok=ok, missing=() if ok else (f"{device.name} has no {runtime}",))

        return SimpleNamespace(spec=spec, probe=probe)

    def open_(name):
        if name == "ssh://gone":
            raise DeviceError("device ssh://gone does not answer")
        architecture, _ = DEVICES[name]
        return SimpleNamespace(
            name=name,
            hardware=lambda: hardware_of(architecture),
            measures_latency=not name.startswith("emulated"),
        )

    monkeypatch.setattr(stands, "load_target", load)
    monkeypatch.setattr(stands, "open_device", open_)
    monkeypatch.setattr(stands, "target_names", lambda: ("anywhere", "arm-only"))


def pairs(targets: tuple[str, ...], *devices: str):
    settings = Settings(target=targets, device=devices or ("local",))
    result = find_stands(SimpleNamespace(settings=settings))
    ready = [(stand.target.spec.name, stand.device.name) for stand in result.ready]
    return ready, {(one.target, one.device): one.reason for one in result.not_run}


BOTH = ("anywhere", "arm-only")


def test_a_target_that_fits_no_named_device_runs_here(fleet):
    ready, not_run = pairs(BOTH, "emulated:arm")
    assert ready == [("anywhere", "local"), ("arm-only", "emulated:arm")]
    assert not_run == {}


def test_a_device_goes_to_every_target_that_fits(fleet):
    ready, _ = pairs(BOTH, "ssh://board")
    assert ready == [("anywhere", "ssh://board"), ("arm-only", "ssh://board")]


def test_several_devices_of_one_target(fleet):
    ready, _ = pairs(("arm-only",), "emulated:arm", "ssh://board")
    assert ready == [("arm-only", "emulated:arm"), ("arm-only", "ssh://board")]


def test_a_device_may_be_for_one_target_only(fleet):
    ready, _ = pairs(BOTH, "anywhere=local", "arm-only=ssh://board")
    assert ready == [("anywhere", "local"), ("arm-only", "ssh://board")]


def test_a_device_that_suits_nobody_is_refused(fleet):
    with pytest.raises(ConfigError, match="local:old: no target"):
        pairs(("arm-only",), "ssh://board", "local:old")


def test_the_wrong_architecture_is_said(fleet):
    with pytest.raises(ConfigError, match="made for aarch64, local is x86_64"):
        pairs(("arm-only",))


def test_a_device_that_does_not_answer_leaves_the_others(fleet):
    ready, not_run = pairs(("arm-only",), "ssh://gone", "emulated:arm")
    assert ready == [("arm-only", "emulated:arm")]
    assert "does not answer" in not_run["arm-only", "ssh://gone"]


def test_the_only_device_must_answer(fleet):
    with pytest.raises(DeviceError, match="does not answer"):
        pairs(("arm-only",), "ssh://gone")


def test_a_missing_runtime_is_no_pass_where_the_architecture_fits(fleet):
    _, not_run = pairs(("anywhere",), "ssh://board", "emulated:arm")
    assert "has no server" in not_run["anywhere", "emulated:arm"]


def test_a_device_of_a_target_that_was_not_asked_for(fleet):
    with pytest.raises(UsageError, match="'arm-only' is not among those asked for"):
        pairs(("anywhere",), "arm-only=ssh://board")


def test_an_emulated_device_gets_this_machine_s_cores(fleet, monkeypatch):
    monkeypatch.setattr(stands, "usable_cores", lambda: 7)
    settings = Settings(target=("arm-only",), device=("emulated:arm", "ssh://board"))
    emulated, board = find_stands(SimpleNamespace(settings=settings)).ready
    assert (emulated.num_threads, board.num_threads) == (7, 2)
