"""The Markdown sections of one target on one device."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from exporter.deliver.report import figures
from exporter.deliver.report.document import (
    CandidateSection,
    Report,
    TargetSection,
    VariantSection,
)
from exporter.deliver.report.headline import (
    FRONT_MEANING,
    FRONT_SYMBOL,
    VERDICT_SYMBOLS,
    VERDICT_WORDS,
    mix_names,
    question,
)
from exporter.deliver.report.markdown_fidelity import fidelity_section
from exporter.deliver.report.markdown_quantization import quantization_section
from exporter.deliver.report.markup import bullets, code, escape, table
from exporter.deliver.report.pareto_plot import pareto_points
from exporter.deliver.report.plot import pareto_file
from exporter.deliver.report.text import name, one_line
from exporter.values import Latency
from targets.contract import Check


def target_sections(report: Report, target: TargetSection, stem: str) -> str:
    """Render everything about one target; `stem` tells its plots from those of others."""
    sections: list[Callable[[TargetSection], str]] = [
        _title,
        _checks,
        _latency,
        _candidates,
        lambda one: _pareto(report, one, stem),
        lambda one: _quantization(one, stem),
        _variants,
        fidelity_section,
        _executed,
        _hardware,
    ]
    return "\n".join(text for text in (section(target) for section in sections) if text)


def _title(target: TargetSection) -> str:
    items = [f"status: {target.status}"]
    if target.reason:
        items.append(f"reason: {escape(one_line(target.reason))}")
    if target.recipe:
        items.append(
            f"recipe: {code(name(target.recipe.name), in_table=False)}: {escape(target.recipe.why)}"
        )
    if target.artifact:
        size = figures.megabytes(target.artifact_size_bytes or target.artifact.size_bytes)
        path = code(target.artifact.path, in_table=False)
        sha256 = code(target.artifact.sha256, in_table=False)
        items.append(f"artifact: {path} ({size}), sha256 {sha256}")
    return f"## {escape(target.target)} on {escape(target.device)}\n\n{bullets(items)}"


# ------------------------------------------------------------------------------ checks


def _checks(target: TargetSection) -> str:
    if not target.checks:
        return "### Checks\n\nNo check was made.\n"
    headers = ("check", "verdict", "value", "95 % interval", "asked", "reason")
    rows = [_check_row(check) for check in target.checks]
    return "### Checks\n\n" + table(headers, rows, "llrrrl")


def _check_row(check: Check) -> tuple[str, ...]:
    asks = question(check)
    title = escape(asks) if asks == check.name else f"{escape(asks)} ({code(check.name)})"
    return (
        title,
        f"{VERDICT_SYMBOLS[check.verdict]} {VERDICT_WORDS[check.verdict]}",
        figures.check_value(check),
        figures.check_interval(check),
        figures.check_threshold(check),
        escape(one_line(check.reason)),
    )


# ----------------------------------------------------------------------------- latency


def _latency(target: TargetSection) -> str:
    if not target.latency:
        return "### Latency\n\nNot measured.\n"
    headers = ("workload", "median", "p90", "p99", "texts/s", "noise", "speed-up over FP32 (95 %)")
    rows = [_latency_row(one) for one in target.latency]
    text = "### Latency\n\n" + table(headers, rows, "lrrrrrr")
    return text + "\nNoise is the relative spread of the rounds; speed-ups are paired by round.\n"


def _latency_row(one: Latency) -> tuple[str, ...]:
    return (
        escape(one.workload),
        figures.milliseconds(one.median_ms),
        figures.percentile("p90", one.p90_ms, one.num_samples),
        figures.percentile("p99", one.p99_ms, one.num_samples),
        f"{one.texts_per_s:.0f}",
        figures.percent(one.spread),
        figures.ratio_estimate(one.speedup),
    )


# -------------------------------------------------------------------------- candidates


def _candidates(target: TargetSection) -> str:
    if not target.candidates:
        return ""
    mixes = mix_names([candidate.latency for candidate in target.candidates])
    headers = (
        "recipe",
        "size",
        "mean cosine",
        _overlap_title(target.candidates),
        *(f"speed-up, {escape(mix)}" for mix in mixes),
        "front",
        "status",
        "reason",
    )
    rows = [_candidate_row(candidate, mixes) for candidate in target.candidates]
    title = "### Candidates\n\nJudged on the development split, which certifies nothing.\n\n"
    text = title + table(headers, rows, "lrrr" + "r" * len(mixes) + "lll")
    front = any(candidate.on_front for candidate in target.candidates)
    return f"{text}\n{FRONT_SYMBOL} {FRONT_MEANING}.\n" if front else text


def _overlap_title(candidates: Sequence[CandidateSection]) -> str:
    ks = [candidate.fidelity.k for candidate in candidates if candidate.fidelity]
    return f"overlap@{ks[0]}" if ks else "overlap"


def _candidate_row(candidate: CandidateSection, mixes: Sequence[str]) -> tuple[str, ...]:
    fidelity = candidate.fidelity
    overlap = fidelity.overlap_at_k if fidelity else None
    return (
        code(name(candidate.recipe.name)),
        figures.megabytes(candidate.size_bytes),
        figures.cosine(fidelity.mean_cosine.value if fidelity else None),
        figures.percent(overlap.value if overlap else None),
        *(figures.ratio(figures.speedup_of(candidate.latency, mix)) for mix in mixes),
        FRONT_SYMBOL if candidate.on_front else "",
        candidate.status,
        escape(one_line(candidate.reason)),
    )


def _pareto(report: Report, target: TargetSection, stem: str) -> str:
    drawn = pareto_points(report, target)
    return f"![Speed against closeness to FP32]({pareto_file(stem)})\n" if drawn else ""


def _quantization(target: TargetSection, stem: str) -> str:
    return quantization_section(target.quantization, stem) if target.quantization else ""


def _variants(target: TargetSection) -> str:
    if not target.variants:
        return ""
    mixes = mix_names([variant.latency for variant in target.variants])
    headers = (
        "way",
        "threads",
        "length multiple",
        "tokens a batch",
        "lowest cosine",
        *(f"speed-up over the default, {escape(mix)}" for mix in mixes),
        "status",
        "reason",
    )
    rows = [_variant_row(variant, mixes) for variant in target.variants]
    title = "### Ways of running it\n\nThe same artifact, timed in turns beside the target's own "
    title += "plan (default) on the development split.\n\n"
    return title + table(headers, rows, "lrrrr" + "r" * len(mixes) + "ll")


def _variant_row(variant: VariantSection, mixes: Sequence[str]) -> tuple[str, ...]:
    return (
        code(name(variant.name)),
        str(variant.num_threads),
        str(variant.length_multiple),
        str(variant.max_batch_tokens),
        figures.cosine(variant.min_cosine),
        *(figures.ratio(figures.speedup_of(variant.latency, mix)) for mix in mixes),
        variant.status,
        escape(one_line(variant.reason)),
    )


# ------------------------------------------------------------------ what ran, and where


def _executed(target: TargetSection) -> str:
    rows = [
        (escape(op_type), escape(dtype), str(cell.count), figures.percent(cell.time_share))
        for op_type, dtypes in target.executed_precisions.items()
        for dtype, cell in dtypes.items()
    ]
    title = "### Executed precisions\n\n"
    if not rows:
        return f"{title}Not inspected.\n"
    return title + table(("operation", "dtype", "count", "share of time"), rows, "llrr")


def _hardware(target: TargetSection) -> str:
    rows = [*_device_rows(target), *_runner_rows(target)]
    rows += [(escape(key), code(value)) for key, value in target.options.items()]
    rows += [(escape(key), code(value)) for key, value in target.tool_versions.items()]
    return "### Hardware and runtime\n\n" + table(("", ""), rows) if rows else ""


def _device_rows(target: TargetSection) -> list[tuple[str, str]]:
    hardware = target.hardware
    if hardware is None:
        return []
    kind = f"{hardware.architecture}, {hardware.microarchitecture or 'unknown microarchitecture'}"
    return [
        ("device", escape(f"{hardware.model_name} ({hardware.vendor})")),
        ("architecture", escape(kind)),
        ("cores, memory", f"{hardware.num_cores}, {hardware.memory_bytes / 2**30:.1f} GiB"),
        ("fingerprint", code(hardware.fingerprint)),
        ("features", code(" ".join(hardware.features))),
    ]


def _runner_rows(target: TargetSection) -> list[tuple[str, str]]:
    runner = target.runner
    if runner is None:
        return []
    memory = ("memory of the process, peak", figures.megabytes(runner.peak_rss_bytes))
    if runner.load_s is None or runner.first_call_ms is None:  # time means nothing there
        return [memory]
    took = f"{runner.load_s:.2f} s, {figures.milliseconds(runner.first_call_ms)}"
    return [("load time, first call", took), memory]
