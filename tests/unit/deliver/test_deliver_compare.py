"""Regressions beyond the noise, in one of two reports."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from deliver_bundles import write_bundle
from deliver_records import CASES

from exporter.cli.app import run
from exporter.deliver.report import document_of, parse_report, to_json
from exporter.steps.compare import compare_bundles
from exporter.values import Estimate
from targets.contract import Interval
from targets.errors import UsageError


def report(**changes):
    made = parse_report(to_json(document_of(CASES["pass"])))
    target = replace(made.targets[0], **changes)
    return replace(made, targets=(target,), compatibility=None)


@pytest.fixture
def compare(tmp_path):
    def both(base, new):
        for name, one in (("base", base), ("new", new)):
            write_bundle(one, tmp_path / name)
        return compare_bundles(tmp_path / "base", tmp_path / "new")

    return both


def fidelity(**changes):
    return replace(report().targets[0].fidelity, **changes)


def estimate(value: float, half: float) -> Estimate:
    return Estimate(
        value=value, interval=Interval(low=value - half, high=value + half), num_samples=1000
    )


def failed(found) -> set[str]:
    return {c.name for row in found.rows for c in row.checks if c.verdict == "fail"}


def test_the_same_is_not_worse(compare):
    found = compare(report(), report())
    assert (found.verdict, found.exit_code) == ("pass", 0)
    assert failed(found) == set()


def test_a_loss_beyond_both_samples_noise_is_a_regression(compare):
    base = report(fidelity=fidelity(overlap_at_k=estimate(0.97, 0.005)))
    lost = report(fidelity=fidelity(overlap_at_k=estimate(0.95, 0.005)))
    assert failed(compare(base, lost)) == {"overlap@10"}
    touching = report(fidelity=fidelity(overlap_at_k=estimate(0.965, 0.005)))
    found = compare(base, touching)
    assert failed(found) == set()
    assert any("within the noise" in c.reason for row in found.rows for c in row.checks)


def test_a_larger_artifact_is_a_regression(compare):
    base = report(artifact_size_bytes=1000)
    assert failed(compare(base, report(artifact_size_bytes=1051))) == {"size"}
    assert failed(compare(base, report(artifact_size_bytes=1049))) == set()


def test_speed_is_compared_on_equal_hardware_only(compare):
    base = report()
    latency = tuple(
        replace(one, speedup=estimate(0.5, 0.01)) if one.speedup else one
        for one in base.targets[0].latency
    )
    slower = report(latency=latency)
    assert any(name.startswith("speedup, ") for name in failed(compare(base, slower)))
    hardware = replace(base.targets[0].hardware, fingerprint="0" * 16)
    found = compare(base, report(latency=latency, hardware=hardware))
    assert failed(found) == set()
    (check,) = (c for row in found.rows for c in row.checks if c.name == "speedup")
    assert check.verdict == "not_run"
    assert "other hardware" in check.reason


def test_a_device_that_is_gone_is_no_pass(compare):
    both = report()
    second = replace(both.targets[0], device="ssh://board")
    base = replace(both, targets=(*both.targets, second))
    found = compare(base, both)
    assert (found.verdict, found.exit_code) == ("not_run", 3)
    assert found.rows[1].missing == "the new report"
    assert compare(both, base).exit_code == 0  # one more is no loss


def test_other_texts_are_not_compared(compare):
    evaluation = report().evaluation
    other = replace(evaluation, test=replace(evaluation.test, sha256="0" * 64))
    with pytest.raises(UsageError, match="side by side"):
        compare(report(), replace(report(), evaluation=other))


def test_the_command_says_it_in_words_and_in_json(tmp_path, capsys):
    for name, size in (("base", 1000), ("new", 2000)):
        write_bundle(report(artifact_size_bytes=size), tmp_path / name)
    arguments = ["compare", str(tmp_path / "base"), str(tmp_path / "new")]
    assert run(arguments) == 1
    assert "larger than before" in capsys.readouterr().out
    assert run([*arguments, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["verdict"] == "fail"
