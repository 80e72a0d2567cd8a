"""`report.html`: one file without network or scripts, rendered from the JSON document alone.

The template escapes every text; plots are pictures inside the page, so their classes and ids
cannot meet the page's. Light or dark follows the reader's own preference, in plots as well.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import cached_property

from exporter.deliver.report import figures, headline, svg
from exporter.deliver.report.document import CandidateSection, Report, TargetSection
from exporter.deliver.report.layer_groups import LayerCost, layer_costs
from exporter.deliver.report.markdown_compatibility import ASYMMETRIC, SYMBOLS, UNDECIDED
from exporter.deliver.report.plot import pareto_file, plot_stems, plots_of, sensitivity_file
from exporter.deliver.report.text import name, one_line, visible
from exporter.values import Fidelity, Latency
from targets.contract import Check, Verdict

REPORT_HTML = "report.html"
_TEMPLATE = "report.html.jinja"
_WIDTH_PX, _HEIGHT_PX, _EDGE_PX = 560, 210, 44
_FEWEST_BINS = 2
_LABEL_EVERY = 3


def to_html(report: Report) -> str:
    """Render the whole report, the verdict first."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("exporter.deliver.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["line"] = lambda text: one_line(str(text))
    environment.filters["shown"] = lambda text: visible(str(text))
    environment.filters["name"] = name
    page = Page(report)
    return environment.get_template(_TEMPLATE).render(page=page, report=report, figures=figures)


@dataclass(frozen=True)
class Part:
    """One target's section: what the template shows of it, ready to be written."""

    section: TargetSection
    anchor: str
    report: Report
    pareto: str
    sensitivity: str

    @property
    def verdict(self) -> Verdict:
        """The worst of its checks, or what its status says."""
        return headline.target_verdict(self.section)

    @property
    def sentence(self) -> str:
        """What became of it."""
        return headline.target_sentence(self.section)

    @property
    def mixes(self) -> list[str]:
        """Mixes that candidates were timed on."""
        return headline.mix_names([one.latency for one in self.section.candidates])

    @property
    def speedups(self) -> list[tuple[str, Latency]]:
        """The real mixes of the certified artifact."""
        return [(one.workload, one) for one in self.section.latency or () if headline.is_mix(one)]

    @property
    def size_bytes(self) -> int | None:
        """Size of what a device needs."""
        artifact = self.section.artifact
        return self.section.artifact_size_bytes or (artifact.size_bytes if artifact else None)

    @property
    def histogram(self) -> str:
        """A picture of how far texts moved; "" where that was not counted."""
        fidelity = self.section.fidelity
        return _picture(_draw_histogram(fidelity)) if fidelity and _has_bins(fidelity) else ""

    @property
    def histogram_rows(self) -> list[tuple[str, int]]:
        """The same in figures, for those who do not see it."""
        fidelity = self.section.fidelity
        if fidelity is None or not _has_bins(fidelity):
            return []
        return [(label, count) for label, count in _bins(fidelity) if count]

    @property
    def costs(self) -> list[LayerCost]:
        """Layers by what they cost."""
        summary = self.section.quantization
        return list(layer_costs(summary.sensitivity)) if summary and summary.sensitivity else []

    def speedup(self, candidate: CandidateSection, mix: str) -> str:
        """A candidate's speed-up on a mix."""
        return figures.ratio(figures.speedup_of(candidate.latency, mix))


class Page:
    """What the template asks for, besides the report itself."""

    symbols = headline.VERDICT_SYMBOLS
    words = headline.VERDICT_WORDS
    simulated = headline.SIMULATED
    front = (headline.FRONT_SYMBOL, headline.FRONT_MEANING)
    exchange_symbols = SYMBOLS
    asymmetric, undecided = ASYMMETRIC, UNDECIDED

    def __init__(self, report: Report) -> None:
        self._report = report

    @property
    def sentence(self) -> str:
        """Why the verdict is what it is."""
        return headline.sentence(self._report)

    @cached_property
    def parts(self) -> list[Part]:
        """The targets, in the report's order."""
        plots = {file: _picture(text) for file, text in plots_of(self._report).items()}
        stems = plot_stems(self._report.targets)
        return [
            Part(
                section=target,
                anchor=stem,
                report=self._report,
                pareto=plots.get(pareto_file(stem), ""),
                sensitivity=plots.get(sensitivity_file(stem), ""),
            )
            for target, stem in zip(self._report.targets, stems, strict=True)
        ]

    @property
    def notes(self) -> list[str]:
        """What is out of the ordinary."""
        return headline.notes(self._report)

    @property
    def text_sets(self) -> list[tuple[str, object]]:
        """All texts with what they were used for."""
        return [*headline.text_sets(self._report)]

    def question(self, check: Check) -> str:
        """What a check asks."""
        return headline.question(check)


def _picture(text: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(text.encode()).decode()}"


def _has_bins(fidelity: Fidelity) -> bool:
    counts, edges = fidelity.histogram_counts, fidelity.histogram_edges
    return len(edges) == len(counts) + 1 and len(counts) >= _FEWEST_BINS and any(counts)


def _bins(fidelity: Fidelity) -> list[tuple[str, int]]:
    """Label every bin with the drift (1 - cosine) that it ends at."""
    edges = fidelity.histogram_edges
    return [
        (f"{low:.2g} to {high:.2g}", count)
        for low, high, count in zip(edges, edges[1:], fidelity.histogram_counts, strict=False)
    ]


def _draw_histogram(fidelity: Fidelity) -> str:
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
