"""Reports of several runs as one, and JUnit of any."""

from __future__ import annotations

import hashlib
import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from deliver_bundles import write_bundle
from deliver_records import CASES, COMPATIBILITY, RECORD, texts

from exporter.deliver.archive import pack_bundle
from exporter.deliver.bundle import BundleWriter
from exporter.deliver.codec import dump_json
from exporter.deliver.manifest import facts_of
from exporter.deliver.report import (
    document_of,
    parse_report,
    read_report,
    to_html,
    to_json,
    to_junit,
    to_markdown,
    write_report,
)
from exporter.deliver.report.merge import merge_reports
from exporter.steps.compatibility import CompatibilityAnswer
from exporter.steps.reports import merged_report
from targets.errors import StorageError, UsageError


def report(name: str = "pass"):
    return parse_report(to_json(document_of(CASES[name])))


def on(made, device: str, **changes):
    """The same run on another device."""
    target = replace(made.targets[0], device=device, **changes)
    return replace(made, targets=(target,), compatibility=None)


def test_one_report_is_itself():
    made = report()
    assert merge_reports([("a", made)]) == made


def test_the_targets_of_all_stand_in_one():
    first, second = on(report(), "local"), on(report(), "ssh://board")
    merged = merge_reports([("a", first), ("b", second)])
    assert [one.device for one in merged.targets] == ["local", "ssh://board"]
    assert merged.verdict == first.verdict
    assert to_html(merged).count("<section") == to_html(first).count("<section") + 1


def test_the_worst_verdict_and_code_win():
    first = on(report(), "local")
    failed = on(report(), "ssh://board", status="failed", reason="it died", checks=())
    failed = replace(failed, verdict="fail", exit_code=4)
    merged = merge_reports([("a", first), ("b", failed)])
    assert (merged.verdict, merged.exit_code) == ("fail", 4)


def test_what_was_expected_and_is_not_there_is_no_pass():
    merged = merge_reports([("a", on(report(), "local"))], [("tensorrt", "gpu")])
    missing = merged.targets[-1]
    assert (missing.target, missing.status) == ("tensorrt", "missing")
    assert "none of the bundles has it" in missing.reason
    assert (merged.verdict, merged.exit_code) == ("fail", 1)
    for text in (to_html(merged), to_markdown(merged)):
        assert "tensorrt on gpu is missing" in text
    there = [(one.target, one.device) for one in report().targets]
    assert merge_reports([("a", report())], there) == report()


def test_what_was_missing_and_came_later_is_there():
    before = merge_reports([("a", on(report(), "local"))], [("openvino", "ssh://board")])
    later = on(report(), "ssh://board")
    merged = merge_reports([("before", before), ("later", later)])
    assert [(one.device, one.status) for one in merged.targets] == [
        ("local", "verified"),
        ("ssh://board", "verified"),
    ]
    other = merge_reports([("before", before), ("other", on(report(), "ssh://third"))])
    assert [one.status for one in other.targets] == ["verified", "verified", "missing"]


@pytest.mark.parametrize(
    "what",
    [
        "model weights",
        "tokenizer",
        "pooling",
        "longest input",
        "prompts",
        "graph",
        "evaluation texts",
        "timed texts",
    ],
)
def test_reports_of_different_things_are_not_merged(what):
    first = on(report(), "local")
    model, evaluation = first.model, first.evaluation
    changed = {
        "model weights": {"model": replace(model, weights_sha256="0" * 64)},
        "tokenizer": {"model": replace(model, tokenizer_sha256="0" * 64)},
        "pooling": {"model": replace(model, pooling="cls")},
        "longest input": {"model": replace(model, max_seq_length=7)},
        "prompts": {"model": replace(model, default_prompt="query: ")},
        "timed texts": {"workload": evaluation.test},
        "graph": {"model": replace(model, graph=replace(model.graph, sha256="0" * 64))},
        "evaluation texts": {
            "evaluation": replace(evaluation, test=replace(evaluation.test, sha256="0" * 64))
        },
    }[what]
    other = replace(on(report(), "ssh://board"), **changed)
    with pytest.raises(UsageError, match="cannot stand side by side") as caught:
        merge_reports([("one", first), ("two", other)])
    assert what in caught.value.why


def test_the_same_device_twice_is_refused():
    with pytest.raises(UsageError, match="both have"):
        merge_reports([("a", on(report(), "local")), ("b", on(report(), "local"))])
    with pytest.raises(UsageError, match="both have"):
        merge_reports([("a", on(report(), "local")), ("a", on(report(), "local"))])


def test_a_damaged_exit_code_is_no_pass():
    odd = replace(on(report(), "local"), exit_code=77)
    assert merge_reports([("a", odd), ("b", on(report(), "ssh://board"))]).exit_code == 4


# ------------------------------------------------------------------------------ bundles


@pytest.fixture
def bundles(tmp_path):
    return [write_bundle(on(report(), name), tmp_path / name) for name in ("one", "two")]


def test_bundles_and_archives_are_read_and_all_forms_written(bundles, tmp_path):
    one, two = bundles
    pack_bundle(two, tmp_path / "two.tar.zst")
    merged = merged_report([one, tmp_path / "two.tar.zst"], ["tensorrt=gpu"])
    write_report(merged, tmp_path / "all")
    assert read_report(tmp_path / "all") == merged
    names = {one.name for one in (tmp_path / "all").iterdir()}
    assert {"report.json", "report.md", "report.html", "junit.xml"} <= names
    assert [one.device for one in merged.targets] == ["one", "two", "gpu"]
    with pytest.raises(UsageError, match="is no pair"):
        merged_report([one], ["tensorrt"])
    with pytest.raises(StorageError, match="nowhere"):
        merged_report([tmp_path / "nowhere"], [])


def test_a_merged_report_says_where_each_part_came_from(bundles, tmp_path):
    other = texts("own", "8")
    write_bundle(replace(on(report(), "two"), calibration=other), tmp_path / "three")
    merged = merged_report([bundles[0], tmp_path / "three"], [])
    first, second = merged.sources
    assert first.name == str(bundles[0])
    assert first.targets == ("openvino on one",)
    assert (first.calibration.name, second.calibration) == ("builtin", other)
    data = (bundles[0] / "reports" / "report.json").read_bytes()
    assert first.report_sha256 == hashlib.sha256(data).hexdigest()
    for text in (to_html(merged), to_markdown(merged)):
        assert other.sha256 in text
        assert first.calibration.sha256 in text
        assert first.report_sha256 in text
        assert second.report_sha256 in text
    assert other.sha256 not in to_html(report())
    write_report(merged, tmp_path / "fleet")
    write_bundle(on(report(), "four"), tmp_path / "four")
    again = merged_report([tmp_path / "fleet", tmp_path / "four"], [])
    assert again.sources[:2] == merged.sources
    assert len(again.sources) == 3
    assert merged_report([bundles[0]], []).sources == ()


@pytest.mark.parametrize("how", ["bundle", "reports", "file"])
def test_a_report_that_was_changed_is_refused_however_it_is_named(how, bundles):
    bundle = bundles[0]
    file = bundle / "reports" / "report.json"
    path = {"bundle": bundle, "reports": file.parent, "file": file}[how]
    assert merged_report([path], []).targets[0].device == "one"
    file.write_bytes(file.read_bytes().replace(b'"one"', b'"uno"'))
    with pytest.raises(StorageError, match=r"is not what (its|the) manifest") as caught:
        merged_report([path], [])
    assert "report.json" in str(caught.value)


def test_other_files_of_a_bundle_are_checked_as_well(bundles):
    (bundles[0] / "onnx" / "model.onnx").write_bytes(b"grapf")
    with pytest.raises(StorageError, match="is not what its manifest says") as caught:
        merged_report(bundles, [])
    assert "onnx/model.onnx: not the bytes that the manifest lists" in caught.value.why


def test_a_truncated_bundle_is_named(bundles):
    (bundles[0] / "onnx" / "model.onnx").unlink()
    with pytest.raises(StorageError) as caught:
        merged_report(bundles, [])
    assert "onnx/model.onnx: listed in the manifest, but not there" in caught.value.why
    (bundles[1] / "manifest.json").unlink()
    with pytest.raises(StorageError, match=r"two/manifest\.json cannot be read"):
        merged_report([bundles[1]], [])


def test_a_truncated_archive_is_named(bundles, tmp_path):
    archive = tmp_path / "one.tar.gz"
    pack_bundle(bundles[0], archive)
    assert merged_report([archive], []).targets[0].device == "one"
    archive.write_bytes(archive.read_bytes()[:-40])
    with pytest.raises(StorageError, match=r"one\.tar\.gz is not a whole archive"):
        merged_report([archive], [])


def test_another_schema_version_is_said_whatever_else_the_file_holds(tmp_path):
    file = tmp_path / "report.json"
    file.write_text('{"schema_version": 2, "something": "new"}')
    with pytest.raises(StorageError, match="is not a report") as caught:
        merged_report([file], [])
    assert "schema version 2, not 1" in caught.value.why
    file.write_text('{"schema_version": 1}')
    with pytest.raises(StorageError, match="is not a report"):
        merged_report([file], [])


def test_a_bundle_without_a_report_is_named(tmp_path):
    with BundleWriter(tmp_path / "out") as writer:
        writer.add_bytes(b"graph", "onnx/model.onnx")
        writer.commit(facts_of(RECORD))
    with pytest.raises(StorageError, match=r"holds no reports/report\.json"):
        merged_report([tmp_path / "out"], [])


# --------------------------------------------------------------------------- the matrix


def matrix_file(folder: Path, **changes) -> Path:
    """A matrix of the one artifact that the bundles have."""
    whole = replace(
        COMPATIBILITY,
        members=COMPATIBILITY.members[:2],
        cells=tuple(
            cell
            for cell in COMPATIBILITY.cells
            if "int8" not in cell.queries_by and "int8" not in cell.documents_by
        ),
        **changes,
    )
    answer = CompatibilityAnswer(compatibility=whole, upgrade=None, exit_code=3)
    file = folder / "compatibility.json"
    file.write_bytes(dump_json(answer))
    return file


def test_a_merged_report_carries_the_matrix_that_it_is_given(bundles, tmp_path):
    assert merged_report(bundles, []).compatibility is None
    merged = merged_report(bundles, ["tensorrt=gpu"], matrix_file(tmp_path))
    members = [one.name for one in merged.compatibility.members]
    assert members == ["float32", "openvino bfloat16"]
    assert "One index" in to_html(merged)
    missing = {one.name: one.reason for one in merged.compatibility.missing}
    assert missing["tensorrt on gpu"] == "it was expected, and none of the bundles has it"


def test_an_artifact_that_the_matrix_does_not_know_is_missing_in_it(bundles, tmp_path):
    artifact = replace(report().targets[0].artifact, sha256="e" * 64)
    other = write_bundle(on(report(), "other", artifact=artifact), tmp_path / "other")
    merged = merged_report([bundles[0], other], [], matrix_file(tmp_path, missing=()))
    (missing,) = merged.compatibility.missing
    assert missing.name == "openvino bfloat16 on other"
    assert "says nothing of it" in missing.reason


def test_a_matrix_of_other_artifacts_is_refused(bundles, tmp_path):
    file = matrix_file(tmp_path)
    file.write_bytes(file.read_bytes().replace(b"a" * 64, b"e" * 64))
    with pytest.raises(UsageError, match="is about other artifacts") as caught:
        merged_report(bundles, [], file)
    assert "openvino bfloat16" in caught.value.why


def test_what_is_no_matrix_is_named(bundles, tmp_path):
    file = matrix_file(tmp_path)
    whole = json.loads(file.read_text())
    whole["compatibility"]["cells"].pop()
    for text in ("{}", "[", json.dumps(whole)):
        file.write_text(text)
        with pytest.raises(StorageError, match="is no matrix"):
            merged_report(bundles, [], file)
    with pytest.raises(StorageError, match="cannot be read"):
        merged_report(bundles, [], tmp_path / "none.json")


# ----------------------------------------------------------------------------- JUnit


@pytest.mark.parametrize("name", CASES)
def test_junit_counts_what_it_holds(name):
    made = report(name)
    root = ET.fromstring(to_junit(made))
    assert len(root) == len(made.targets)
    for suite, target in zip(root, made.targets, strict=True):
        cases = suite.findall("testcase")
        assert int(suite.get("tests")) == len(cases) == max(1, len(target.checks))
        failed = [case for case in cases if case.find("failure") is not None]
        assert int(suite.get("failures")) == len(failed)
        wanted = sum(check.verdict == "fail" for check in target.checks)
        if target.checks:
            assert len(failed) == wanted


def test_what_was_not_run_is_skipped_with_its_reason_and_never_passed():
    made = merge_reports([("a", on(report(), "local"))], [("tensorrt", "gpu")])
    (case,) = ET.fromstring(to_junit(made))[-1]
    assert "none of the bundles has it" in case.find("failure").get("message")
    (case,) = ET.fromstring(to_junit(report("not_run")))[-1]
    assert "no NVIDIA driver" in case.find("skipped").get("message")


def test_a_failure_says_value_and_threshold():
    made = report("fail")
    text = to_junit(made)
    check = next(c for t in made.targets for c in t.checks if c.verdict == "fail")
    assert "<failure" in text
    assert ", asked " in text
    assert check.reason[:10] in text


def test_control_characters_do_not_break_it():
    made = on(report(), "local", reason="\x00\x1b[31m", status="failed", checks=())
    ET.fromstring(to_junit(made))
