"""The Markdown section on how far a target's embeddings are from FP32's."""

from __future__ import annotations

from collections.abc import Sequence

from exporter.deliver.report import figures
from exporter.deliver.report.document import TargetSection
from exporter.deliver.report.headline import SIMULATED
from exporter.deliver.report.markup import bullets, code, escape, table
from exporter.deliver.report.text import shorten
from exporter.values import Fidelity, LabelMetric, LengthSlice, Neighbour, WorstText

_MAX_TEXT_CHARS = 160
_MAX_NEIGHBOUR_CHARS = 60
_MAX_NEIGHBOURS = 2


def fidelity_section(target: TargetSection) -> str:
    """Render drift, labels, stability, slices by length, and the texts that moved most."""
    fidelity = target.fidelity
    if fidelity is None:
        return "### Fidelity\n\nNot measured.\n"
    parts = [
        "### Fidelity\n",
        bullets([*_simulated(target), *_fidelity_items(fidelity)]),
        _labels(fidelity.labels),
        _slices(fidelity),
        _worst(fidelity),
    ]
    return "\n".join(part for part in parts if part)


def _simulated(target: TargetSection) -> list[str]:
    return [SIMULATED] if target.numerics == "simulated" else []


def _fidelity_items(fidelity: Fidelity) -> list[str]:
    items = [
        f"{escape(fidelity.evaluation)}, split {escape(fidelity.split)}: "
        f"{fidelity.num_texts} texts, {fidelity.num_queries} queries; 95 % intervals",
        f"cosine with FP32: mean {figures.cosine_estimate(fidelity.mean_cosine)}, "
        f"worst 1 % of texts {figures.cosine_estimate(fidelity.p1_cosine)}, "
        f"lowest {figures.cosine(fidelity.min_cosine)}",
    ]
    if fidelity.overlap_at_k:
        kept = figures.percent_estimate(fidelity.overlap_at_k)
        items.append(f"FP32's own {fidelity.k} nearest neighbours kept: {kept}")
    if fidelity.stability:
        stability = fidelity.stability
        items.append(
            f"same text in other company ({stability.num_texts} texts), lowest cosine: "
            f"alone or in a batch {figures.cosine(stability.alone_vs_batched)}, "
            f"padded {figures.cosine(stability.padded)}, "
            f"shuffled {figures.cosine(stability.shuffled)}"
        )
    return items


def _labels(labels: Sequence[LabelMetric]) -> str:
    rows = [
        (
            escape(metric.name),
            f"{metric.reference:.4f}",
            f"{metric.candidate:.4f}",
            figures.signed_estimate(metric.difference),
        )
        for metric in labels
    ]
    headers = ("on labels", "FP32", "this artifact", "difference (95 %)")
    return table(headers, rows, "lrrr") if rows else ""


def _slices(fidelity: Fidelity) -> str:
    rows = [_slice_row(one) for one in fidelity.slices]
    headers = (
        "tokens",
        "texts",
        "mean cosine",
        "lowest cosine",
        f"overlap@{fidelity.k}",
        f"recall@{fidelity.k} (FP32)",
    )
    return table(headers, rows, "lrrrrr") if rows else ""


def _slice_row(one: LengthSlice) -> tuple[str, ...]:
    return (
        f"{one.low} to {one.high - 1}",
        str(one.num_texts),
        figures.cosine(one.mean_cosine),
        figures.cosine(one.min_cosine),
        figures.percent(one.overlap_at_k),
        figures.beside_reference(one.recall, one.reference_recall),
    )


def _worst(fidelity: Fidelity) -> str:
    rows = [_worst_row(one) for one in fidelity.worst]
    headers = ("cosine", "tokens", "text that moved most", "kept", "nearest lost", "gained")
    return table(headers, rows, "rrlrll") if rows else ""


def _worst_row(one: WorstText) -> tuple[str, ...]:
    return (
        figures.cosine(one.cosine),
        str(one.num_tokens),
        code(shorten(one.text, _MAX_TEXT_CHARS)),
        figures.percent(one.kept),
        _neighbours(one.lost),
        _neighbours(one.gained),
    )


def _neighbours(found: Sequence[Neighbour]) -> str:
    if not found:
        return figures.NONE
    shown = [code(shorten(one.text, _MAX_NEIGHBOUR_CHARS)) for one in found[:_MAX_NEIGHBOURS]]
    left = len(found) - len(shown)
    return ", ".join(shown) + (f" and {left} more" if left else "")
