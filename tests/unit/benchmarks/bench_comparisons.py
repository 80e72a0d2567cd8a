"""A whole comparison of two artifacts, with or without a defeat."""

from __future__ import annotations

from bench_values import OURS, fidelity, series

from benchmarks.contenders import BASELINE
from benchmarks.figures import Closeness, Comparison, ContenderFigures, is_beaten, workload_figures
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
        target="openvino",
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
