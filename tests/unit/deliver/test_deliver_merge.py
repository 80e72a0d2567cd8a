"""Reports of several runs as one, and JUnit of any."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from deliver_records import CASES

from exporter.deliver.report import (
    document_of,
    parse_report,
    read_report,
    to_html,
    to_json,
    to_junit,
    write_report,
)
from exporter.deliver.report.merge import merge_reports
from exporter.steps.reports import merge_bundles
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
    assert (missing.target, missing.status) == ("tensorrt", "not_run")
    assert "in none of the reports" in missing.reason
    assert (merged.verdict, merged.exit_code) == ("not_run", 3)
    there = [(one.target, one.device) for one in report().targets]
    assert merge_reports([("a", report())], there) == report()


@pytest.mark.parametrize("what", ["model weights", "pooling", "graph", "evaluation texts"])
def test_reports_of_different_things_are_not_merged(what):
    first = on(report(), "local")
    model, evaluation = first.model, first.evaluation
    changed = {
        "model weights": {"model": replace(model, weights_sha256="0" * 64)},
        "pooling": {"model": replace(model, pooling="cls")},
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


def test_bundles_are_read_and_all_forms_written(tmp_path):
    for name in ("one", "two"):
        write_report(on(report(), name), tmp_path / name / "reports")
    merged = merge_bundles([tmp_path / "one", tmp_path / "two"], ["tensorrt=gpu"], tmp_path / "all")
    assert read_report(tmp_path / "all") == merged
    names = {one.name for one in (tmp_path / "all").iterdir()}
    assert {"report.json", "report.md", "report.html", "junit.xml"} <= names
    with pytest.raises(UsageError, match="is no pair"):
        merge_bundles([tmp_path / "one"], ["tensorrt"], tmp_path / "x")
    with pytest.raises(StorageError):
        merge_bundles([tmp_path / "nowhere"], [], tmp_path / "x")
    assert not (tmp_path / "x").exists()


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
    assert "in none of the reports" in case.find("skipped").get("message")


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
