"""The histogram of how far texts moved, as a picture and in figures."""

from __future__ import annotations

from exporter.deliver.report import svg
from exporter.values import Fidelity

_WIDTH_PX, _HEIGHT_PX, _EDGE_PX = 560, 210, 44
_FEWEST_BINS = 2
_LABEL_EVERY = 3


def has_bins(fidelity: Fidelity) -> bool:
    """Say whether drift was counted at all."""
    counts, edges = fidelity.histogram_counts, fidelity.histogram_edges
    return len(edges) == len(counts) + 1 and len(counts) >= _FEWEST_BINS and any(counts)


def labelled_bins(fidelity: Fidelity) -> list[tuple[str, int]]:
    """Label every bin with the drift (1 - cosine) that it ends at."""
    edges = fidelity.histogram_edges
    return [
        (f"{low:.2g} to {high:.2g}", count)
        for low, high, count in zip(edges, edges[1:], fidelity.histogram_counts, strict=False)
    ]


def draw_histogram(fidelity: Fidelity) -> str:
    """Draw all bins, each as wide as the other: drift is looked at by its order of magnitude."""
    counts, edges = fidelity.histogram_counts, fidelity.histogram_edges
    most = max(counts)
    bottom, width = _HEIGHT_PX - _EDGE_PX, (_WIDTH_PX - 2 * _EDGE_PX) / len(counts)
    parts = [svg.line(_EDGE_PX, bottom, _WIDTH_PX - _EDGE_PX, bottom, "axis")]
    for place, count in enumerate(counts):
        left, height = _EDGE_PX + place * width, (bottom - 3 * svg.FONT_PX) * count / most
        if count:
            parts.append(svg.rectangle(left + 1, bottom - height, width - 2, height, "bar"))
            middle = left + width / 2
            parts.append(svg.text(middle, bottom - height - 4, str(count), "faint", "middle"))
        if place and place % _LABEL_EVERY == 0:
            under = bottom + 1.4 * svg.FONT_PX
            parts.append(svg.text(left, under, f"{edges[place]:.0e}", "faint", "middle"))
    title, below = "1 − cosine with FP32, texts in each range", bottom + 2.8 * svg.FONT_PX
    parts.append(svg.text(_WIDTH_PX / 2, below, title, "faint", "middle"))
    words = f"{sum(counts)} texts by 1 - cosine; most, {most}, in one range"
    return svg.document("Drift of each text from FP32", words, _WIDTH_PX, _HEIGHT_PX, parts)
