"""Our side: the artifact of the target asked for, run in the very way that was chosen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from bench_reports import ENTRY, HARDWARE, report, section, variant, write_entry

from benchmarks import bundles
from benchmarks.bundles import (
    bundle_plan,
    bundle_threads,
    chosen_section,
    ensure_bundle,
    own_threads,
    recipe_name,
    require_this_machine,
)
from exporter.steps.bundled import artifact_of, graph_of
from targets.contract import RunPlan
from targets.errors import StepError, StorageError, UsageError
from targets.openvino.target import OpenVinoTarget

PAD = 0


@pytest.fixture
def bundle(tmp_path) -> Path:
    write_entry(tmp_path / "out")
    return tmp_path / "out"


def default_plan(bundle: Path) -> RunPlan:
    """The plan that the target itself makes for the artifact of these reports."""
    about = report([section(bundle)])
    artifact = artifact_of(bundle, about, about.targets[0])
    graph = graph_of(bundle, about)
    return OpenVinoTarget().run_plan(artifact, graph, PAD, HARDWARE.num_cores)


def stored(bundle: Path, *variants, options=None):
    """A report whose artifact was run with the default options and one of the variants."""
    reported = options or default_plan(bundle).options
    return report([section(bundle, options=reported, variants=variants)])


# ------------------------------------------------------------------- which of a report's targets


def test_the_target_asked_for_is_taken_wherever_it_stands(bundle):
    sections = [section(bundle), section(bundle, "onnxruntime", options={"a": "b"})]
    for order in (sections, sections[::-1]):
        assert chosen_section(report(order)).target == "openvino"
        assert chosen_section(report(order), "onnxruntime").options == {"a": "b"}


def test_an_artifact_for_another_device_is_passed_over(bundle):
    far = section(bundle, "onnxruntime", "emulated:haswell", options={"far": "1"})
    near = section(bundle, "onnxruntime", options={"near": "1"})
    assert chosen_section(report([far, near]), "onnxruntime").options == {"near": "1"}
    with pytest.raises(UsageError, match="onnxruntime on this machine") as caught:
        chosen_section(report([far]), "onnxruntime")
    assert "emulated:haswell" in caught.value.why


def test_a_bundle_of_another_target_is_refused_with_the_command(bundle):
    with pytest.raises(UsageError, match="no verified artifact for onnxruntime") as caught:
        chosen_section(report([section(bundle)]), "onnxruntime")
    assert "openvino" in caught.value.why
    assert "--target onnxruntime" in caught.value.hint


def test_everything_is_read_from_that_target_s_section(bundle):
    recipe = replace(section(bundle).recipe, name="int8-dynamic")
    elsewhere = replace(section(bundle).hardware, num_cores=2, fingerprint="another")
    other = section(bundle, "onnxruntime", recipe=recipe, hardware=elsewhere)
    both = report([section(bundle), other])
    assert (recipe_name(both), recipe_name(both, "onnxruntime")) == ("float32", "int8-dynamic")
    assert (bundle_threads(both), bundle_threads(both, "onnxruntime")) == (4, 2)
    require_this_machine(both, HARDWARE)
    with pytest.raises(UsageError, match="another machine"):
        require_this_machine(both, HARDWARE, "onnxruntime")


# ----------------------------------------------------------------------------- the chosen way


def test_without_variants_the_plan_is_the_target_s_own(bundle):
    assert bundle_plan(bundle, stored(bundle), PAD) == default_plan(bundle)


def test_the_chosen_way_of_running_is_taken(bundle):
    plan = default_plan(bundle)
    kept = variant("default", plan, status="eligible")
    batches = variant("batch-tokens-1024", plan, max_batch_tokens=1024)
    found = bundle_plan(bundle, stored(bundle, kept, batches), PAD)
    assert found == replace(plan, max_batch_tokens=1024)


def test_a_way_that_was_tried_and_not_chosen_is_not_taken(bundle):
    plan = default_plan(bundle)
    kept = variant("default", plan)
    batches = variant("batch-tokens-1024", plan, status="eligible", max_batch_tokens=1024)
    assert bundle_plan(bundle, stored(bundle, kept, batches), PAD) == plan


def test_a_way_with_threads_of_its_own_keeps_them(bundle):
    plan = default_plan(bundle)
    options = {**plan.options, "INFERENCE_NUM_THREADS": "2"}
    halved = variant("threads-2", plan, num_threads=2, options=options)
    about = stored(bundle, halved, options=options)
    assert bundle_plan(bundle, about, PAD).options == options
    assert (bundle_threads(about), own_threads(about)) == (4, 2)
    assert own_threads(stored(bundle)) == 4


@pytest.mark.parametrize(
    "changes",
    [{"length_multiple": 24}, {"max_batch_tokens": 77}],
    ids=["another bucket", "another budget"],
)
def test_a_way_that_is_no_longer_offered_is_refused(bundle, changes):
    gone = variant("gone", default_plan(bundle), **changes)
    with pytest.raises(StorageError, match="not be run as its report says"):
        bundle_plan(bundle, stored(bundle, gone), PAD)


def test_other_options_than_the_report_s_are_refused(bundle):
    options = {"INFERENCE_PRECISION_HINT": "f64"}
    with pytest.raises(StorageError, match="not be run as its report says") as caught:
        bundle_plan(bundle, stored(bundle, options=options), PAD)
    assert "f64" in caught.value.why


def test_another_file_in_the_artifact_s_place_is_refused(bundle):
    about = stored(bundle)
    (bundle / ENTRY).write_text("<other/>")
    with pytest.raises(StorageError, match="not the file"):
        bundle_plan(bundle, about, PAD)


# ------------------------------------------------------------------------- a missing bundle


def export_that_ends_with(code: int, folder: Path, monkeypatch) -> Path:
    """Put a program that notes its arguments in the interpreter's place."""
    program, noted = folder / "python", folder / "arguments"
    program.write_text(f'#!/bin/sh\necho "$@" > "{noted}"\nexit {code}\n')
    program.chmod(0o755)
    monkeypatch.setattr(bundles.sys, "executable", str(program))
    return noted


def test_a_missing_bundle_is_exported_for_the_target(tmp_path, monkeypatch):
    noted = export_that_ends_with(4, tmp_path, monkeypatch)
    with pytest.raises(StepError, match="could not be exported") as caught:
        ensure_bundle(tmp_path / "new", "onnxruntime")
    assert "exit code 4" in caught.value.why
    assert "export --target onnxruntime" in noted.read_text()
    assert noted.read_text().split()[-2:] == ["-o", str(tmp_path / "new")]


@pytest.mark.parametrize("code", [0, 1, 3])
def test_a_gate_that_failed_is_still_a_bundle(tmp_path, monkeypatch, code):
    export_that_ends_with(code, tmp_path, monkeypatch)
    with pytest.raises(StorageError, match="cannot be read"):  # it wrote none
        ensure_bundle(tmp_path / "new")


def test_what_is_there_is_never_exported_again(tmp_path, monkeypatch):
    noted = export_that_ends_with(0, tmp_path, monkeypatch)
    with pytest.raises(StorageError, match="cannot be read"):
        ensure_bundle(tmp_path, "onnxruntime")
    assert not noted.exists()
