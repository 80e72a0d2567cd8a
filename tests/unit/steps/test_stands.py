"""Which targets can run here."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from exporter.config import Settings
from exporter.steps import stands
from exporter.steps.stands import find_stands
from targets.contract import Availability, TargetSpec
from targets.errors import NotInstalledError, UsageError


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
