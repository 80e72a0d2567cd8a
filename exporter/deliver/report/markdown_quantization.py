"""The Markdown section on static int8: the methods compared, and what each layer costs."""

from __future__ import annotations

from collections.abc import Sequence

from exporter.deliver.report import figures
from exporter.deliver.report.curve_plot import has_curve
from exporter.deliver.report.layer_groups import LayerCost, layer_costs
from exporter.deliver.report.markup import bullets, code, escape, table
from exporter.deliver.report.plot import curve_file, sensitivity_file
from exporter.deliver.report.text import name
from exporter.values import MethodScore, QuantizationSummary, TableSensitivity, TrainingSummary

_MAX_LAYERS = 12
_MAX_NAME_CHARS = 100


def quantization_section(summary: QuantizationSummary, stem: str) -> str:
    """Render how static int8 was found; `stem` tells the target's plots apart."""
    parts = [
        "### Static int8: how it was found\n",
        bullets(_items(summary)),
        _curve(summary.training, stem),
        _methods(summary),
        _layers(summary, stem),
    ]
    return "\n".join(part for part in parts if part)


def _items(summary: QuantizationSummary) -> list[str]:
    items = [
        f"statistics of {summary.num_texts} calibration texts ({summary.num_tokens} tokens), "
        f"table with sha256 {code(summary.table_sha256, in_table=False)}",
        f"methods and layers were compared on {summary.num_held_out} texts by their drift, "
        "1 − mean cosine with FP32",
        f"{escape(summary.method)}: drift {figures.drift(summary.drift)} with all layers in int8",
    ]
    if summary.attention:
        items.append(_attention(summary.attention))
    if summary.reduced:
        shown = ", ".join(_layer(path, in_table=False) for path in summary.reduced[:_MAX_LAYERS])
        left = len(summary.reduced) - _MAX_LAYERS
        more = f" and {left} more" if left > 0 else ""
        items.append(f"7-bit weights, lest sums saturate ({len(summary.reduced)}): {shown}{more}")
    if summary.training is not None:
        items.append(_training(summary.training))
    return items


def _training(done: TrainingSummary) -> str:
    before, after = figures.drift(done.drift_before), figures.drift(done.drift_after)
    what_for = "a recipe of its own" if done.used else "**not used**: it is no better"
    classes = f"; {figures.class_accuracies(done.labels)}" if done.labels else ""
    return (
        f"trained for {done.num_steps} steps of {done.batch_tokens} tokens on {done.num_texts} "
        f"texts ({escape(done.texts)}): drift {after} on {done.num_held_out} held-out texts, "
        f"{before} before; {what_for}{classes}"
    )


def _curve(training: TrainingSummary | None, stem: str) -> str:
    if training is None or not has_curve(training):
        return ""
    return f"![Drift of held-out texts in training]({curve_file(stem)})\n"


def _attention(ranges: Sequence[MethodScore]) -> str:
    chosen, *others = (f"{escape(one.method)} {figures.drift(one.drift)}" for one in ranges)
    beside = f"; others: {', '.join(others)}" if others else ""
    return f"attention in int8, ranges and drift with all layers in int8: {chosen}{beside}"


def _methods(summary: QuantizationSummary) -> str:
    rows = [_method_row(score) for score in summary.scores]
    return table(("method", "drift", "chosen"), rows, "lrl") if rows else ""


def _method_row(score: MethodScore) -> tuple[str, ...]:
    return escape(score.method), figures.drift(score.drift), "✓ chosen" if score.chosen else ""


def _layers(summary: QuantizationSummary, stem: str) -> str:
    costs = sorted(layer_costs(summary.sensitivity), key=lambda cost: -cost.drift)
    if not costs:
        return ""
    headers = ("layers", "drift alone in int8", "share of all drifts", "share of the work")
    text = "What each layer costs in int8, all others in float. Layers that read one tensor "
    text += "change together; work is multiplications.\n\n"
    rows = [_table_row(one) for one in summary.tables]
    rows += [_layer_row(cost) for cost in costs[:_MAX_LAYERS]]
    text += table(headers, rows, "lrrr")
    plot = f"![What each layer costs in static int8]({sensitivity_file(stem)})\n"
    return f"{text}\n{_rest(costs[_MAX_LAYERS:])}{plot}"


def _layer_row(cost: LayerCost) -> tuple[str, ...]:
    return (
        _layer(cost.name),
        figures.drift(cost.drift),
        figures.percent(cost.drift_share),
        figures.percent(cost.work_share),
    )


def _table_row(one: TableSensitivity) -> tuple[str, ...]:
    return (figures.tables_in(one), figures.drift(one.drift), figures.NONE, figures.NONE)


def _rest(costs: list[LayerCost]) -> str:
    if not costs:
        return ""
    left = figures.percent(sum(cost.drift_share for cost in costs))
    rows = "1 more row has" if len(costs) == 1 else f"{len(costs)} more rows have"
    return f"{rows} {left} of all drifts; `report.json` lists them all.\n\n"


def _layer(path: str, *, in_table: bool = True) -> str:
    return code(name(path, _MAX_NAME_CHARS), in_table=in_table)
