"""The document: raw samples in, ratios out, nothing lost on the way to JSON."""

from __future__ import annotations

from dataclasses import replace

import pytest
from bench_comparisons import FIDELITIES, comparison, figures
from bench_values import OURS, series

from benchmarks.contenders import BASELINE
from benchmarks.contest import COLD
from benchmarks.figures import Comparison, is_beaten, workload_figures
from benchmarks.table import print_comparison
from exporter.deliver.codec import dump_json, load_json


def test_ratios_are_paired_and_mirror_each_other():
    found = figures(25.0)
    ours, baseline = found.artifacts[OURS], found.artifacts[BASELINE]
    assert ours.latency.speedup.value == pytest.approx(2.5, rel=0.02)
    assert baseline.time_to_ours.value == pytest.approx(ours.latency.speedup.value)
    assert ours.time_to_ours is None
    assert baseline.latency.speedup is None


def test_raw_samples_are_kept():
    timed = series({OURS: 10.0, BASELINE: 25.0})
    kept = workload_figures(timed, FIDELITIES).artifacts[OURS].samples_ms
    assert kept == tuple(map(tuple, timed.samples_ms[OURS].round(4).tolist()))


@pytest.mark.parametrize(("baseline_ms", "beaten"), [(25.0, False), (5.0, True)])
def test_a_defeat_anywhere_is_the_comparison_s(baseline_ms, beaten):
    assert is_beaten([figures(25.0), figures(baseline_ms)]) is beaten


def test_first_requests_are_shown_and_not_judged():
    timed = replace(series({OURS: 10.0, BASELINE: 5.0}), workload=COLD)
    found = workload_figures(timed, FIDELITIES)
    assert found.verdict is None
    assert not is_beaten([found])


def test_the_document_survives_json():
    document = comparison([figures(25.0)])
    assert load_json(Comparison, dump_json(document)) == document


def test_the_table_names_the_defeat(capsys):
    print_comparison(comparison([figures(5.0)]))
    shown = capsys.readouterr().out
    assert "all-MiniLM-L6-v2 for openvino on A processor" in shown
    assert "1x16: BEATEN by st-onnx-fp32 (0.50" in shown
    assert "0.50 [" in shown
    assert "23" in shown
    assert "note: a note" in shown
