"""`report.html`: one file without network or scripts, rendered from the JSON document alone.

The template escapes every text; plots are pictures inside the page, so their classes and ids
cannot meet the page's. Light or dark follows the reader's own preference, in plots as well.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import cached_property

from exporter.deliver.report import figures, headline
from exporter.deliver.report.document import Report, TargetSection
from exporter.deliver.report.histogram_plot import draw_histogram, has_bins, labelled_bins
from exporter.deliver.report.layer_groups import LayerCost, layer_costs
from exporter.deliver.report.markdown_compatibility import ASYMMETRIC, SYMBOLS, UNDECIDED
from exporter.deliver.report.plot import (
    curve_file,
    pareto_file,
    plot_stems,
    plots_of,
    sensitivity_file,
)
from exporter.deliver.report.text import name, one_line, visible
from exporter.values import CompatibilityCell, Latency
from targets.contract import Check, Verdict

REPORT_HTML = "report.html"
WAIVED = "waived"
"""Detail of a check that the gate let pass by a waiver."""
_TEMPLATES, _TEMPLATE = "templates", "report.html.jinja"


def to_html(report: Report) -> str:
    """Render the whole report, the verdict first."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("exporter.deliver.report", _TEMPLATES),
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
    curve: str

    @property
    def verdict(self) -> Verdict:
        """The worst of its checks, or what its status says."""
        return headline.target_verdict(self.section)

    @property
    def place(self) -> str:
        """Target and device, as the page calls them everywhere."""
        return f"{name(self.section.target)} on {name(self.section.device)}"

    @property
    def open_checks(self) -> list[Check]:
        """Checks that do not pass."""
        return headline.open_checks(self.section)

    @property
    def sentence(self) -> str:
        """What became of it."""
        return headline.target_sentence(self.section)

    @property
    def mixes(self) -> list[str]:
        """Mixes that candidates were timed on."""
        return headline.mix_names([one.latency for one in self.section.candidates])

    @property
    def mix_columns(self) -> list[str]:
        """Headings of their columns."""
        return _columns_of(self.mixes)

    @property
    def variant_mixes(self) -> list[str]:
        """Mixes that ways of running it were timed on."""
        return headline.mix_names([one.latency for one in self.section.variants])

    @property
    def variant_mix_columns(self) -> list[str]:
        """Headings of their columns."""
        return _columns_of(self.variant_mixes)

    @property
    def speedups(self) -> list[tuple[str, Latency]]:
        """The real mixes of the certified artifact."""
        return [(one.workload, one) for one in self.section.latency or () if headline.is_mix(one)]

    @property
    def is_baseline(self) -> bool:
        """Whether the artifact is what all others are compared with."""
        return headline.is_baseline(self.section)

    @property
    def size_bytes(self) -> int | None:
        """Size of what a device needs."""
        artifact = self.section.artifact
        return self.section.artifact_size_bytes or (artifact.size_bytes if artifact else None)

    @property
    def histogram(self) -> str:
        """A picture of how far texts moved; "" where that was not counted."""
        fidelity = self.section.fidelity
        return _picture(draw_histogram(fidelity)) if fidelity and has_bins(fidelity) else ""

    @property
    def histogram_rows(self) -> list[tuple[str, int]]:
        """The same in figures, for those who do not see it."""
        fidelity = self.section.fidelity
        if fidelity is None or not has_bins(fidelity):
            return []
        return [(label, count) for label, count in labelled_bins(fidelity) if count]

    @property
    def costs(self) -> list[LayerCost]:
        """Layers by what they cost."""
        summary = self.section.quantization
        return list(layer_costs(summary.sensitivity)) if summary and summary.sensitivity else []

    def speedup(self, latency: tuple[Latency, ...] | None, mix: str) -> str:
        """A candidate's or a way's speed-up on a mix, with its interval."""
        found = [one.speedup for one in latency or () if one.workload == mix]
        return figures.ratio_estimate(found[0] if found else None)


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
                anchor=f"target-{stem}",  # apart from the ids of the page itself
                report=self._report,
                pareto=plots.get(pareto_file(stem), ""),
                sensitivity=plots.get(sensitivity_file(stem), ""),
                curve=plots.get(curve_file(stem), ""),
            )
            for target, stem in zip(self._report.targets, stems, strict=True)
        ]

    @property
    def open_parts(self) -> list[Part]:
        """Targets that do not pass."""
        return [part for part in self.parts if part.verdict != "pass"]

    @property
    def waived_checks(self) -> list[tuple[Part, Check]]:
        """Every check that passes by somebody's decision alone."""
        return [
            (part, check)
            for part in self.parts
            for check in part.section.checks
            if check.verdict == "pass" and WAIVED in check.details
        ]

    @property
    def lossy_cells(self) -> list[CompatibilityCell]:
        """Pairs of artifacts that cannot share an index without a loss."""
        matrix = self._report.compatibility
        return [one for one in matrix.cells if one.exchange != "drop-in"] if matrix else []

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


def _columns_of(mixes: list[str]) -> list[str]:
    return [f"#{name(mix)}" for mix in mixes]


def _picture(text: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(text.encode()).decode()}"
