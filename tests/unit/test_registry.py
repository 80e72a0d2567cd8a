"""Names of targets and devices."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from targets.contract import Target
from targets.errors import NotInstalledError, UnknownTargetError, UsageError
from targets.registry import (
    BUILT_IN,
    ENTRY_POINT_GROUP,
    describe_targets,
    load_target,
    open_device,
    target_names,
)

ROOT = Path(__file__).parents[2]

PLUG_IN = """
from targets.contract import Availability, Recipe, TargetSpec

class Toaster:
    spec = TargetSpec(name="toaster", vendor="v", runtime="Toast", precisions=("float32",),
                      max_opset=20, artifact_kind="bread", extra="toaster")
    def probe(self, device): return Availability(ok=False, missing=("no bread",))
    def candidates(self, graph, hardware): return []
    def compile(self, request): ...
    def run_plan(self, artifact, graph, pad_token_id, num_threads): ...
    def ship(self, artifact): return []

class Misnamed(Toaster):
    pass

class Raising(Toaster):
    spec = TargetSpec(name="raising", vendor="v", runtime="Toast", precisions=("float32",),
                      max_opset=20, artifact_kind="bread", extra="toaster")
    def probe(self, device): raise KeyError("crumbs")

class NoTarget:
    spec = Toaster.spec

class Exploding:
    def __init__(self): raise RuntimeError("smoke")
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Install a distribution that registers targets, as pip would lay it out."""
    (tmp_path / "toaster_plug_in.py").write_text(PLUG_IN)
    monkeypatch.syspath_prepend(tmp_path)

    def lay_out(distribution: str = "toaster", **targets: str) -> None:
        info = tmp_path / f"{distribution}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Name: {distribution}\nVersion: 1.0\n")
        lines = [f"{name} = {value}" for name, value in targets.items()]
        text = f"[{ENTRY_POINT_GROUP}]\n" + "\n".join(lines) + "\n"
        (info / "entry_points.txt").write_text(text)

    return lay_out


def test_built_in_targets_are_there_without_installation():
    assert target_names()[: len(BUILT_IN)] == tuple(BUILT_IN)
    for name in BUILT_IN:
        target = load_target(name)
        assert isinstance(target, Target)
        assert target.spec.name == name


def test_the_package_registers_the_same_ones():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["entry-points"][ENTRY_POINT_GROUP] == dict(BUILT_IN)


def test_naming_targets_imports_none_of_them():
    program = (
        "import sys; from targets.registry import target_names; target_names()\n"
        "print([m for m in sys.modules if m.startswith(('targets.openvino', 'targets.devices'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == "[]"


def test_an_unknown_target_lists_the_nearest_first(install):
    install(toaster="toaster_plug_in:Toaster")
    with pytest.raises(UnknownTargetError) as caught:
        load_target("toastr")
    assert "'toastr'" in caught.value.what
    assert "nearest first: toaster, " in caught.value.why
    with pytest.raises(UnknownTargetError) as caught:
        load_target("OpenVino")
    assert "nearest first: openvino, " in caught.value.why


def test_a_plug_in_comes_after_ours(install):
    install(toaster="toaster_plug_in:Toaster")
    assert target_names() == (*BUILT_IN, "toaster")
    assert load_target("toaster").spec.runtime == "Toast"


def test_a_plug_in_cannot_take_a_built_in_name(install):
    install(openvino="toaster_plug_in:Toaster")
    assert target_names() == tuple(BUILT_IN)
    assert load_target("openvino").spec.runtime == "OpenVINO"


def test_of_two_plug_ins_with_one_name_the_same_one_counts_always(install):
    install("later", toaster="toaster_plug_in:Toaster")
    install("earlier", toaster="toaster_plug_in:Exploding")
    with pytest.raises(NotInstalledError, match="toaster"):
        load_target("toaster")
    assert target_names() == (*BUILT_IN, "toaster")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("no_such_module:Toaster", "ModuleNotFoundError"),
        ("toaster_plug_in:Missing", "AttributeError"),
        ("toaster_plug_in:Exploding", "smoke"),
        ("toaster_plug_in:NoTarget", "not a target"),
        ("toaster_plug_in:Misnamed", "calls itself 'toaster'"),
    ],
)
def test_a_broken_plug_in_stays_listed_with_the_reason(install, value, reason):
    install(broken=value)
    with pytest.raises(NotInstalledError) as caught:
        load_target("broken")
    assert reason in caught.value.why
    assert "toaster" in caught.value.hint
    row = next(row for row in describe_targets(open_device("local")) if row.name == "broken")
    assert row.state.startswith("broken: ")
    assert reason in row.state
    assert (row.runtime, row.precisions, row.spec, row.availability) == ("-", (), None, None)


def test_a_probe_that_raises_is_a_broken_target(install):
    install(raising="toaster_plug_in:Raising")
    row = next(row for row in describe_targets(open_device("local")) if row.name == "raising")
    assert "its probe raised KeyError: 'crumbs'" in row.state
    assert row.runtime == "Toast"


def test_what_is_missing_is_the_state(install):
    install(toaster="toaster_plug_in:Toaster")
    rows = {row.name: row for row in describe_targets(open_device("local"))}
    assert list(rows) == list(target_names())
    assert rows["toaster"].state == "no bread"
    assert rows["toaster"].precisions == ("float32",)


def test_the_local_device():
    device = open_device("local")
    assert device.name == "local"
    assert device.measures_latency


@pytest.mark.parametrize("name", ["loca", "", "sssh://nowhere"])
def test_an_unknown_device_lists_the_known_ones(name):
    with pytest.raises(UsageError) as caught:
        open_device(name)
    assert repr(name) in caught.value.what
    assert "local" in caught.value.why


def test_a_target_for_another_architecture_is_not_ready_here():
    row = next(
        one for one in describe_targets(open_device("local")) if one.name == "onnxruntime-mobile"
    )
    here = open_device("local").hardware().architecture
    assert (row.state == "ready") is (here == "aarch64")
    if here != "aarch64":
        assert row.state == f"made for aarch64, this is {here}"
