"""The document: raw samples in, ratios out, nothing lost on the way to JSON."""

from __future__ import annotations

from dataclasses import replace

import pytest
from bench_values import OURS, fidelity, series

from benchmarks.contenders import BASELINE
from benchmarks.contest import COLD
from benchmarks.figures import Closeness, Comparison, ContenderFigures, is_beaten, workload_figures
from benchmarks.table import print_comparison
from exporter.deliver.codec import dump_json, load_json
from exporter.values import TextsSummary
from targets.contract import Hardware

FIDELITIES = {OURS: fidelity(0.999, 0.97), BASELINE: fidelity(1.0, 1.0)}


def figures(baseline_ms: float):
    return workload_figures(series({OURS: 10.0, BASELINE: baseline_ms}), FIDELITIES)


def comparison(workloads) -> Comparison:
    hardware = Hardware(
        architecture="x86_64",
        vendor="GenuineIntel",
        model_name="A processor",
        microarchitecture="sapphirerapids",
        features=frozenset({"avx2"}),
        num_cores=2,
        memory_bytes=2**34,
    )
    closeness = Closeness(
        mean_cosine=FIDELITIES[OURS].mean_cosine,
        p1_cosine=FIDELITIES[OURS].p1_cosine,
        min_cosine=0.99,
        overlap_at_10=None,
    )
    ours = ContenderFigures(
        name=OURS,
        title="this bundle",
        entry_sha256="0" * 64,
        size_bytes=23_000_000,
        batching="buckets",
        options={},
        made_with={},
        run_with={},
        load_s=0.5,
        first_call_ms=20.0,
        peak_rss_bytes=10**8,
        closeness=closeness,
    )
    return Comparison(
        beaten=is_beaten(workloads),
        created_utc="2026-01-01T00:00:00+00:00",
        command="python -m benchmarks.peers",
        device="local",
        hardware=hardware,
        hardware_fingerprint=hardware.fingerprint,
        num_threads=2,
        model_id="all-MiniLM-L6-v2",
        weights_sha256="0" * 64,
        recipe="int8",
        evaluation=TextsSummary(name="t", origin="o", sha256="0" * 64, num_texts=1),
        notes=("a note",),
        tool_versions={},
        contenders=(ours,),
        workloads=tuple(workloads),
    )


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
    assert "1x16: BEATEN by st-onnx-fp32 (0.50" in shown
    assert "0.50 [" in shown
    assert "23" in shown
    assert "note: a note" in shown
