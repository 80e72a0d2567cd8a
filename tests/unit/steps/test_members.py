"""Where artifacts of bundles are embedded: on their own device, simulated, or not at all."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from opened import SECTION, opened

from exporter.steps import members
from exporter.steps.members import candidates_of, place_all
from targets.contract import Availability, Hardware
from targets.errors import DeviceError, NotInstalledError

HERE = Hardware(
    architecture="x86_64",
    vendor="v",
    model_name="here",
    microarchitecture="m",
    features=frozenset(),
    num_cores=2,
    memory_bytes=1 << 30,
)
FAR = replace(HERE, model_name="far", architecture="aarch64")


def on(hardware: Hardware, device: str = "local", **changes):
    """A section that was verified on that hardware."""
    measured = replace(SECTION.hardware, fingerprint=hardware.fingerprint)
    return replace(SECTION, hardware=measured, device=device, **changes)


@pytest.fixture
def world(monkeypatch):
    """This machine, an emulated ARM CPU, and an address that does not answer."""
    found = SimpleNamespace(ok=True)

    def open_device(name):
        if name.startswith("ssh://"):
            raise DeviceError(f"{name} does not answer")
        hardware = FAR if name.startswith("emulated:") else HERE
        return SimpleNamespace(
            name=name, measures_latency=hardware is HERE, hardware=lambda: hardware
        )

    def load_target(name):
        if name == "broken":
            raise NotInstalledError("target broken cannot be loaded", why="boom")
        spec = SimpleNamespace(name=name, architectures=("x86_64", "aarch64"))
        answer = Availability(ok=found.ok, missing=() if found.ok else ("no runtime",))
        return SimpleNamespace(spec=spec, probe=lambda device: answer)

    monkeypatch.setattr(members, "open_device", open_device)
    monkeypatch.setattr(members, "load_target", load_target)
    return found


def placed(*sections, simulate=False):
    return place_all(candidates_of([opened(sections=sections)]), simulate=simulate, threads=None)


def test_the_device_itself_is_taken_where_it_is_here(world):
    (one,), missing = placed(on(HERE))
    assert (one.numerics, one.stand.device.name, missing) == ("device", "local", [])


def test_another_machine_s_local_artifact_is_simulated(world):
    (one,), _ = placed(on(replace(HERE, model_name="another")))
    assert (one.numerics, one.stand.device.name) == ("simulated", "local")
    assert "local is another machine here" in one.why_simulated


def test_a_device_that_does_not_answer_is_simulated(world):
    (one,), _ = placed(on(FAR, "ssh://user@host"))
    assert (one.numerics, one.stand.device.name) == ("simulated", "local")
    assert "does not answer" in one.why_simulated


def test_an_emulated_cpu_runs_unless_a_simulation_is_asked_for(world):
    emulated = on(FAR, "emulated:neoverse-n1")
    (one,), _ = placed(emulated)
    assert (one.numerics, one.stand.device.name) == ("device", "emulated:neoverse-n1")
    (one,), _ = placed(emulated, simulate=True)
    assert (one.numerics, one.stand.device.name) == ("simulated", "local")


def test_what_cannot_run_here_is_missing_with_the_reason(world):
    world.ok = False
    found, (gone,) = placed(on(HERE))
    assert found == []
    assert "no runtime" in gone.reason
    _, (broken,) = placed(on(HERE, target="broken"))
    assert "boom" in broken.reason


def test_what_is_prepared_is_simulated_where_its_target_can(world, monkeypatch):
    prepared = on(FAR, status="prepared")
    _, (gone,) = placed(prepared)
    assert "openvino cannot simulate it here" in gone.reason
    target = members.load_target("openvino")
    parts = ("lacking_to_prepare", "prepared_hardware", "detected_hardware", "structure", "finish")
    able = SimpleNamespace(
        **vars(target), **dict.fromkeys(parts, str), simulation=lambda *_: "the plan"
    )
    monkeypatch.setattr(members, "load_target", lambda name: able)
    (one,), missing = placed(prepared)
    assert (one.numerics, one.stand.device.name, missing) == ("simulated", "local", [])
    assert "has not finished it" in one.why_simulated
    bundle = SimpleNamespace(artifact=lambda section: "the artifact", graph=None)
    built = members.built_of(bundle, prepared, 0)
    assert (built.artifact, built.plan) == ("the artifact", "the plan")


@pytest.mark.parametrize("status", ["failed", "not_run"])
def test_what_was_not_verified_is_missing(world, status):
    found, (gone,) = placed(on(HERE, status=status, reason="because"))
    assert found == []
    assert status.replace("_", " ") in gone.reason
    assert "because" in gone.reason


def test_names_tell_every_artifact_apart():
    both = [opened("old/out"), opened("new/out"), opened("third", sections=(on(FAR, "d:x"),))]
    names = [one.name for one in candidates_of(both)]
    assert len(set(names)) == 3
    assert names[2] == "openvino bfloat16 on d:x"
    assert ("old/out" in names[0], "new/out" in names[1]) == (True, True)
    assert [one.name for one in candidates_of([opened("a"), opened("b")])] == [
        "openvino bfloat16 (a)",
        "openvino bfloat16 (b)",
    ]
    assert [one.name for one in candidates_of([opened("a")])] == ["openvino bfloat16"]
