"""Artifacts finished on their device: once, one at a time, held against what is said of them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event, Thread

import pytest
from arena import HARDWARE, recipe, tokens_of

from exporter.config import Settings
from exporter.deliver.cache import Cache
from exporter.progress import SilentReporter
from exporter.steps import building
from exporter.steps.building import finished
from exporter.steps.execution import Stand
from exporter.steps.workspace import Workspace
from targets.artifacts import artifact_file
from targets.contract import ArtifactFile, CompiledArtifact, FinishRequest, TargetSpec
from targets.errors import CompileError

SPEC = TargetSpec(
    name="two-steps",
    vendor="test",
    runtime="none",
    precisions=("float32",),
    max_opset=20,
    artifact_kind="none",
    extra="none",
)


class TwoSteps:
    """Finishes by copying; keeps what it was asked."""

    spec = SPEC
    lacking_to_prepare = prepared_hardware = detected_hardware = structure = simulation = str

    def __init__(self) -> None:
        self.requests: list[FinishRequest] = []

    def finish(self, request: FinishRequest) -> CompiledArtifact:
        self.requests.append(request)
        source = request.engine or request.artifact.directory / "graph"
        place = request.output_dir / "engine"
        place.write_bytes(source.read_bytes())
        return replace(
            request.artifact, directory=request.output_dir, files=(artifact_file(place),)
        )


class OneStep:
    spec = SPEC


@pytest.fixture
def work(tmp_path: Path) -> Workspace:
    cache = Cache(tmp_path / "cache")
    return Workspace(settings=Settings(), cache=cache, reporter=SilentReporter())


@pytest.fixture
def prepared(tmp_path: Path) -> CompiledArtifact:
    folder = tmp_path / "prepared"
    folder.mkdir()
    (folder / "graph").write_text("a graph")
    return CompiledArtifact(
        directory=folder,
        files=(artifact_file(folder / "graph"),),
        target=SPEC.name,
        recipe=recipe("float32"),
        built_from="0" * 64,
        device_requirement=(),
        tool_versions={},
        compile_s=1.0,
    )


def on(target: object) -> Stand:
    """A stand whose target no child could load; what it does there, it does here."""
    TARGETS[:] = [target]
    return Stand(target=target, device=DEVICE, hardware=HARDWARE, tool_versions={}, num_threads=1)


class DEVICE:
    name = "local"


TARGETS: list[object] = []


@pytest.fixture(autouse=True)
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands for `compilers.finish_apart`, which has tests of its own."""
    monkeypatch.setattr(building, "finish_apart", lambda _, request: TARGETS[0].finish(request))


def test_what_needs_one_step_is_finished(work, prepared):
    assert finished(work, on(OneStep()), prepared) is prepared


def test_the_device_builds_once(work, prepared):
    target = TwoSteps()
    first = finished(work, on(target), prepared)
    again = finished(work, on(target), prepared)
    assert [file.path for file in first.files] == ["engine"]
    assert (first.directory / "engine").read_text() == "a graph"
    assert again == first
    (request,) = target.requests
    assert request.keep_dir == work.cache.root / "kept" / SPEC.name


def test_another_build_is_another_engine(work, prepared, tmp_path):
    target = TwoSteps()
    given = tmp_path / "given"
    given.write_text("trtexec's")
    finished(work, on(target), prepared)
    finished(work, on(target), prepared, {"level": "5"})
    taken = finished(work, on(target), prepared, engine=given)
    finished(work, replace(on(target), tool_versions={"runtime": "2"}), prepared)
    finished(work, on(target), prepared, calibration=tokens_of([3, 4]))
    finished(work, on(target), prepared, calibration=tokens_of([3, 5]))
    finished(work, on(target), prepared, calibration=tokens_of([3, 5]))
    assert len(target.requests) == 6
    assert (taken.directory / "engine").read_text() == "trtexec's"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"files": (ArtifactFile(path="engine", sha256="0" * 64, size_bytes=7),)}, "hash"),
        ({"files": ()}, "names no file"),
        ({"built_from": "1" * 64}, "another graph"),
        ({"recipe": recipe("other")}, "another recipe"),
        ({"target": "else"}, "calls itself"),
    ],
    ids=["hash", "nothing", "graph", "recipe", "target"],
)
def test_a_target_that_says_something_else_is_refused(
    work, prepared, monkeypatch, changes, message
):
    honest = TwoSteps.finish

    def wrong(target: TwoSteps, request: FinishRequest) -> CompiledArtifact:
        return replace(honest(target, request), **changes)

    monkeypatch.setattr(TwoSteps, "finish", wrong)
    with pytest.raises(CompileError, match="what it finished for float32") as caught:
        finished(work, on(TwoSteps()), prepared)
    assert message in caught.value.why


def test_builders_take_turns(work, prepared):
    """They time kernels: two at once would measure each other."""
    inside, go_on, seen = Event(), Event(), []

    class Slow(TwoSteps):
        def finish(self, request: FinishRequest) -> CompiledArtifact:
            seen.append(work.device_builds.locked())
            inside.set()
            assert go_on.wait(20)
            return super().finish(request)

    target = Slow()
    build = partial(finished, work, on(target), prepared)
    threads = [Thread(target=build, args=({"build": name},)) for name in "ab"]
    for thread in threads:
        thread.start()
    assert inside.wait(20)
    assert len(target.requests) == 0 and len(seen) == 1
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert seen == [True, True]
    assert len(target.requests) == 2
