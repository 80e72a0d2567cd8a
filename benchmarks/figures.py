"""The result of a comparison as a document: every figure with its raw samples and origin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.contenders import BASELINE, OURS, Contender
from benchmarks.contest import COLD
from benchmarks.dominance import Dominance, judge_dominance, time_ratio
from exporter.judge import summarize
from exporter.values import Estimate, Fidelity, Latency, TextsSummary, TimedSeries
from targets.contract import Hardware, RunnerInfo
from targets.hashing import sha256_file

SCHEMA_VERSION = 2
_SAMPLE_DECIMALS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Closeness:
    """How far embeddings are from PyTorch's FP32 embeddings of the same texts."""

    mean_cosine: Estimate
    p1_cosine: Estimate
    min_cosine: float
    overlap_at_10: Estimate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContenderFigures:
    """One artifact: what it is, what it weighs, how close it stays to FP32."""

    name: str
    title: str
    entry_sha256: str
    size_bytes: int
    batching: str
    options: Mapping[str, str]
    made_with: Mapping[str, str]
    run_with: Mapping[str, str]
    load_s: float | None
    first_call_ms: float | None
    peak_rss_bytes: int
    closeness: Closeness


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactTimes:
    """One artifact on one workload.

    Args:
        latency: statistics; `speedup` is over the baseline, paired by round.
        time_to_ours: this artifact's time / ours, paired by round; None for ours.
        samples_ms: raw samples, [rounds][samples per round].
    """

    latency: Latency
    time_to_ours: Estimate | None
    samples_ms: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadFigures:
    """All artifacts on one workload, with the verdict where the workload is judged."""

    workload: str
    texts_per_sample: int
    artifacts: Mapping[str, ArtifactTimes]
    verdict: Dominance | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The whole document. `beaten` says whether any peer is both faster and closer."""

    schema_version: int = SCHEMA_VERSION
    target: str
    beaten: bool
    created_utc: str
    command: str
    device: str
    hardware: Hardware
    hardware_fingerprint: str
    num_threads: int
    model_id: str
    weights_sha256: str
    recipe: str
    evaluation: TextsSummary
    notes: tuple[str, ...]
    tool_versions: Mapping[str, str]
    contenders: tuple[ContenderFigures, ...]
    workloads: tuple[WorkloadFigures, ...]


def contender_figures(
    contender: Contender, info: RunnerInfo, fidelity: Fidelity
) -> ContenderFigures:
    """Put together what is known of one artifact."""
    plan = contender.plan
    own = f"buckets of {plan.length_multiple}, {plan.max_batch_tokens} tokens a batch"
    return ContenderFigures(
        name=contender.name,
        title=contender.title,
        entry_sha256=sha256_file(plan.model),
        size_bytes=contender.size_bytes,
        batching=f"{contender.batch_size} texts a batch" if contender.batch_size else own,
        options=info.options,
        made_with=contender.versions,
        run_with=info.tool_versions,
        load_s=info.load_s,
        first_call_ms=info.first_call_ms,
        peak_rss_bytes=info.peak_rss_bytes,
        closeness=Closeness(
            mean_cosine=fidelity.mean_cosine,
            p1_cosine=fidelity.p1_cosine,
            min_cosine=fidelity.min_cosine,
            overlap_at_10=fidelity.overlap_at_k,
        ),
    )


def workload_figures(series: TimedSeries, fidelities: Mapping[str, Fidelity]) -> WorkloadFigures:
    """Summarize one workload; the view of first requests is shown and not judged."""
    names = list(series.samples_ms)
    peers = [name for name in names if name != OURS]
    is_judged = series.workload != COLD
    return WorkloadFigures(
        workload=series.workload,
        texts_per_sample=series.texts_per_sample,
        artifacts={name: _times(series, name) for name in names},
        verdict=judge_dominance(series, fidelities, OURS, peers) if is_judged else None,
    )


def _times(series: TimedSeries, name: str) -> ArtifactTimes:
    rounds = series.samples_ms[name].round(_SAMPLE_DECIMALS).tolist()
    return ArtifactTimes(
        latency=summarize(series, name, None if name == BASELINE else BASELINE),
        time_to_ours=None if name == OURS else time_ratio(series, name, OURS),
        samples_ms=tuple(tuple(row) for row in rounds),
    )


def is_beaten(workloads: Sequence[WorkloadFigures]) -> bool:
    """Say whether a peer is both faster and closer anywhere."""
    return any(figures.verdict and figures.verdict.dominated_by for figures in workloads)
