"""`report.md`: for a release manager; rendered from the JSON document alone."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.deliver.report.document import Report, SourceSection
from exporter.deliver.report.figures import NONE, cosine, seconds
from exporter.deliver.report.headline import (
    VERDICT_SYMBOLS,
    VERDICT_WORDS,
    notes,
    sentence,
    target_sentence,
    target_verdict,
    text_sets,
)
from exporter.deliver.report.markdown_compatibility import compatibility_section
from exporter.deliver.report.markdown_target import target_sections
from exporter.deliver.report.markup import bullets, code, code_block, escape, table
from exporter.deliver.report.plot import plot_stems
from exporter.deliver.report.text import shorten_middle
from exporter.values import Provenance, TextsSummary

_MAX_TITLE_CHARS = 100


def to_markdown(report: Report) -> str:
    """Render the whole report, the verdict first."""
    parts = [_verdict(report)]
    parts += [
        target_sections(report, target, stem)
        for target, stem in zip(report.targets, plot_stems(report.targets), strict=True)
    ]
    parts.append(compatibility_section(report.compatibility))
    parts += [_notes(report), _model(report), _texts(report), _provenance(report)]
    return "\n".join(part for part in parts if part)


def _verdict(report: Report) -> str:
    title = code(shorten_middle(report.model.id, _MAX_TITLE_CHARS), in_table=False)
    word, symbol = VERDICT_WORDS[report.verdict], VERDICT_SYMBOLS[report.verdict]
    lines = [f"# Compatibility report: {title}\n"]
    lines.append(f"**{symbol} {word}**: {escape(sentence(report))}.\n")
    lines.append(
        f"Exit code {report.exit_code}; written {escape(report.provenance.created_utc)}.\n"
    )
    if len(report.targets) > 1:
        lines.append(bullets(_target_lines(report)))
    return "\n".join(lines)


def _target_lines(report: Report) -> list[str]:
    verdicts = [target_verdict(target) for target in report.targets]
    return [
        f"{VERDICT_SYMBOLS[verdict]} {VERDICT_WORDS[verdict]}: {escape(target_sentence(target))}"
        for target, verdict in zip(report.targets, verdicts, strict=True)
    ]


def _notes(report: Report) -> str:
    items = [escape(note) for note in notes(report)]
    return f"## Notes and warnings\n\n{bullets(items) if items else 'None.' + chr(10)}"


def _model(report: Report) -> str:
    model, graph, parity = report.model, report.model.graph, report.model.graph.parity
    revision = f", revision {code(model.revision)}" if model.revision else ""
    rows = [
        ("model", f"{code(model.id)} ({escape(model.source)}{revision})"),
        ("library, architecture", escape(f"{model.library}, {model.architecture}")),
        ("modules", escape(" → ".join(model.modules)) or NONE),
        ("pooling, normalized", escape(f"{model.pooling}, {_yes_no(model.normalize)}")),
        (
            "embedding dimension, longest input",
            f"{model.embedding_dim}, {model.max_seq_length} tokens",
        ),
        ("prompt before every text", code(model.default_prompt)),
        ("remote code", "run" if model.trust_remote_code else "not run"),
        ("sha256 of the weights", code(model.weights_sha256)),
        ("sha256 of the tokenizer", code(model.tokenizer_sha256)),
        ("sha256 of the FP32 ONNX graph", f"{code(graph.sha256)} (opset {graph.opset})"),
        (
            "ONNX against PyTorch",
            f"lowest cosine {cosine(parity.min_cosine)}, largest difference "
            f"{parity.max_abs_difference:.2g}, {parity.num_cases} cases",
        ),
    ]
    return "## Model and graph\n\n" + table(("", ""), rows)


def _texts(report: Report) -> str:
    headers = ("use", "name", "texts", "queries", "documents", "tokens (median, longest)", "sha256")
    rows = [_texts_row(kind, texts) for kind, texts in text_sets(report)]
    origins = [f"{escape(texts.name)}: {escape(texts.origin)}" for _, texts in text_sets(report)]
    unique = list(dict.fromkeys(origins))
    return "## Texts\n\n" + table(headers, rows, "llrrrrl") + "\n" + bullets(unique)


def _texts_row(kind: str, texts: TextsSummary) -> tuple[str, ...]:
    return (
        kind,
        escape(texts.name),
        str(texts.num_texts),
        str(texts.num_queries) if texts.num_queries else NONE,
        str(texts.num_documents) if texts.num_documents else NONE,
        f"{texts.median_tokens:.0f}, {texts.max_tokens}",
        code(texts.sha256),
    )


def _provenance(report: Report) -> str:
    title = "## Provenance\n"
    if not report.sources:
        return f"{title}\n{_run(report.provenance)}"
    return "\n".join([title, *(_source(one) for one in report.sources)])


def _source(source: SourceSection) -> str:
    sha256, targets = code(source.report_sha256, in_table=False), ", ".join(source.targets)
    items = [escape(targets), f"`report.json` with sha256 {sha256}", source.provenance.created_utc]
    heading = f"### {code(shorten_middle(source.name, _MAX_TITLE_CHARS), in_table=False)}\n"
    return "\n".join([heading, bullets(items), _run(source.provenance)])


def _run(provenance: Provenance) -> str:
    cached = provenance.stages_from_cache
    parts = [code_block(provenance.command)]
    parts.append(
        "The figures were taken in this run, but for the stages from the cache below.\n"
        if cached
        else "All figures were taken in this run.\n"
    )
    if provenance.stage_s:
        rows = [(escape(stage), seconds(took_s)) for stage, took_s in provenance.stage_s.items()]
        parts.append(table(("stage", "time"), rows, "lr"))
    if cached:
        times = [(escape(stage), escape(provenance.made_utc.get(stage, NONE))) for stage in cached]
        parts.append(table(("stage from the cache", "figures taken (UTC)"), times))
    parts.append(_pairs("setting", provenance.settings))
    parts.append(_pairs("tool", provenance.tool_versions))
    return "\n".join(parts)


def _pairs(title: str, pairs: Mapping[str, str]) -> str:
    rows = [(escape(name), code(value)) for name, value in pairs.items()]
    return table((title, ""), rows) if rows else ""


def _yes_no(value: bool) -> str:
    return "yes" if value else "no"
