"""The report's plots as SVG files beside it, drawn from the JSON document alone."""

from __future__ import annotations

import re
from collections.abc import Sequence

from exporter.deliver.report import figures, svg
from exporter.deliver.report.curve_plot import draw_curve, has_curve
from exporter.deliver.report.document import Report, TargetSection
from exporter.deliver.report.layer_groups import LayerCost, layer_costs
from exporter.deliver.report.pareto_plot import draw_pareto, pareto_points
from exporter.deliver.report.text import shorten_middle, visible
from exporter.values import QuantizationSummary

_ROW_PX, _BAR_PX, _WORK_BAR_PX = 26, 11, 5
_TOP_PX, _BOTTOM_PX, _PLOT_PX, _EDGE_PX = 126, 56, 420, 16
_VALUE_PX = 70
"""Room for a drift in figures behind the longest bar."""
_MAX_LABEL_CHARS = 52


def plots_of(report: Report) -> dict[str, str]:
    """Draw everything that can be drawn: file name → SVG."""
    plots = {}
    for target, stem in zip(report.targets, plot_stems(report.targets), strict=True):
        if target.quantization and target.quantization.sensitivity:
            plots[sensitivity_file(stem)] = draw_sensitivity(target, target.quantization)
        training = target.quantization.training if target.quantization else None
        if training is not None and has_curve(training):
            plots[curve_file(stem)] = draw_curve(training)
        points = pareto_points(report, target)
        if points:
            plots[pareto_file(stem)] = draw_pareto(report, target, points)
    return plots


def plot_stems(targets: Sequence[TargetSection]) -> tuple[str, ...]:
    """Name each target so that it fits in a file name and a link, no two alike."""
    stems: list[str] = []
    for target in targets:
        base = re.sub(r"[^a-z0-9]+", "-", target.target.lower())[:40].strip("-") or "target"
        number, stem = 1, base
        while stem in stems:
            number += 1
            stem = f"{base}-{number}"
        stems.append(stem)
    return tuple(stems)


def sensitivity_file(stem: str) -> str:
    """Name the plot of what each layer costs."""
    return f"sensitivity-{stem}.svg"


def pareto_file(stem: str) -> str:
    """Name the plot of speed against closeness."""
    return f"pareto-{stem}.svg"


def curve_file(stem: str) -> str:
    """Name the plot of a training."""
    return f"training-{stem}.svg"


# ------------------------------------------------------------------------- sensitivity


def draw_sensitivity(target: TargetSection, summary: QuantizationSummary) -> str:
    """Draw each group of layers as two bars in execution order: drift, and share of the work.

    Both are shares of the whole, so that they compare: where the thick bar is longer, a layer
    costs more than it buys. The drift itself stands behind the bar.
    """
    costs = layer_costs(summary.sensitivity)
    labels = [shorten_middle(visible(cost.name), _MAX_LABEL_CHARS) for cost in costs]
    left = _EDGE_PX + max(svg.text_width(label) for label in labels) + 10
    longest = max(max(cost.drift_share, cost.work_share) for cost in costs)
    scale = _PLOT_PX / max(longest * 100.0, 1e-9)
    bottom = _TOP_PX + len(costs) * _ROW_PX
    parts = [*_heading(target, summary), *_axis(left, bottom, longest * 100.0, scale)]
    for row, (cost, label) in enumerate(zip(costs, labels, strict=True)):
        parts += _bars(cost, label, left, _TOP_PX + row * _ROW_PX, scale)
    width = max(int(left + _PLOT_PX + _VALUE_PX + _EDGE_PX), 640)
    return svg.document(
        f"What each layer costs in static int8: {target.target} on {target.device}",
        _sensitivity_words(costs),
        width,
        bottom + _BOTTOM_PX,
        parts,
    )


def _heading(target: TargetSection, summary: QuantizationSummary) -> list[str]:
    place = shorten_middle(visible(f"{target.target} on {target.device}"), 50)
    about = f"{place}; drift of all together {figures.drift(summary.drift)}"
    return [
        svg.text(_EDGE_PX, 26, "What each layer costs in static int8", "title"),
        svg.text(_EDGE_PX, 46, about, "faint"),
        svg.rectangle(_EDGE_PX, 57, 24, _BAR_PX, "bar"),
        svg.text(_EDGE_PX + 32, 67, "drift alone in int8; in figures: 1 − mean cosine"),
        svg.rectangle(_EDGE_PX, 79, 24, _WORK_BAR_PX, "outline"),
        svg.text(_EDGE_PX + 32, 86, "work: multiplications of the layer"),
    ]


def _axis(left: float, bottom: float, longest: float, scale: float) -> list[str]:
    """Draw grid, tick labels above and below (the plot may be long), and the axis' name."""
    parts = []
    values, decimals = svg.ticks(0.0, max(longest, 1e-9))
    for value in values:
        x = left + value * scale
        parts.append(svg.line(x, _TOP_PX - 4, x, bottom, "thin"))
        parts += [
            svg.text(x, y, f"{value:.{decimals}f}", "faint", "middle")
            for y in (_TOP_PX - 8, bottom + 16)
        ]
    middle = left + _PLOT_PX / 2
    parts.append(svg.line(left, _TOP_PX - 4, left, bottom, "axis"))
    parts.append(svg.text(middle, bottom + 38, "share of all layers (%)", "ink", "middle"))
    return parts


def _bars(cost: LayerCost, label: str, left: float, top: float, scale: float) -> list[str]:
    drift_px, work_px = cost.drift_share * 100 * scale, cost.work_share * 100 * scale
    return [
        svg.text(left - 8, top + 13, label, "ink", "end"),
        svg.rectangle(left, top + 3, drift_px, _BAR_PX, "bar"),
        svg.rectangle(left, top + 4 + _BAR_PX, work_px, _WORK_BAR_PX, "outline"),
        svg.text(left + max(drift_px, work_px) + 6, top + 13, figures.drift(cost.drift)),
    ]


def _sensitivity_words(costs: Sequence[LayerCost]) -> str:
    worst = max(costs, key=lambda cost: cost.drift)
    return (
        f"Bars of {len(costs)} groups of layers in execution order. Most drift comes from "
        f"{shorten_middle(worst.name, 200)}: {figures.drift(worst.drift)}, "
        f"{figures.percent(worst.drift_share)} of the sum, for "
        f"{figures.percent(worst.work_share)} of the multiplications."
    )
