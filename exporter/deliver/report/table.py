"""The report in a terminal: verdict, candidates, and the checks that did not pass.

Nothing is said by colour alone, and everything fits 80 columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from exporter.deliver.report import figures
from exporter.deliver.report.document import CandidateSection, Report, TargetSection
from exporter.deliver.report.headline import (
    FRONT_MEANING,
    FRONT_SYMBOL,
    SIMULATED,
    VERDICT_SYMBOLS,
    VERDICT_WORDS,
    mix_names,
    open_checks,
    place_name,
    question,
    sentence,
    speed_on_mixes,
    target_sentence,
    target_verdict,
    warnings,
)
from exporter.deliver.report.text import isolated, name, one_line, shorten, visible
from targets.contract import Check, Verdict

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table
    from rich.text import Text

_WIDE_COLUMNS = 110
"""From this width on, the reasons have a column of their own."""
_MAX_NAME_CHARS = 40
_MAX_TEXT_CHARS = 400
_STYLES: dict[Verdict, str] = {
    "pass": "bold green",
    "fail": "bold red",
    "inconclusive": "bold yellow",
    "not_run": "bold yellow",
}
_OUTCOMES = {
    "chosen": "✓ chosen",
    "eligible": "· eligible",
    "dropped": "– dropped",
    "failed": "✗ failed",
}
_OUTCOME_STYLES = {"chosen": "bold green", "eligible": "", "dropped": "dim", "failed": "red"}
# For terminals that cannot show more than ASCII.
_ASCII = str.maketrans(
    {
        "✓": "+",
        "✗": "x",
        "×": "x",
        "–": "-",
        "−": "-",
        "·": ".",
        "…": "~",
        "≥": ">=",
        "≤": "<=",
        "→": "->",
        "◆": "*",
    }
)


def terminal_table(report: Report) -> ReportView:
    """Return what a rich console prints: it adapts to the console's width and encoding."""
    return ReportView(report)


class ReportView:
    """A rich renderable of one report."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        """Yield the parts from top to bottom."""
        layout = _Layout(is_wide=options.max_width >= _WIDE_COLUMNS, is_ascii=options.ascii_only)
        yield from layout.verdict(self._report)
        for target in self._report.targets:
            yield ""
            if len(self._report.targets) > 1:
                yield layout.target_verdict(target)
            yield from layout.target(target)
        yield from layout.notes(self._report)


class _Layout:
    """How parts look at one width and encoding."""

    def __init__(self, *, is_wide: bool, is_ascii: bool) -> None:
        self._is_wide = is_wide
        self._is_ascii = is_ascii

    def text(self, text: str, style: str = "", max_chars: int = _MAX_TEXT_CHARS) -> Text:
        """Turn any text into one that changes nothing around it."""
        from rich.text import Text

        shown = shorten(visible(text), max_chars)
        if self._is_ascii:
            plain = shown.translate(_ASCII).encode("ascii", "backslashreplace").decode()
            return Text(plain, style=style)
        return Text(isolated(shown), style=style)

    def line(self, *parts: tuple[str, str]) -> Text:
        """Join styled parts with spaces to one line, which the console may wrap."""
        from rich.text import Text

        return Text(" ").join(self.text(text, style) for text, style in parts)

    # ------------------------------------------------------------------------ parts

    def verdict(self, report: Report) -> Iterator[RenderableType]:
        word = f"{VERDICT_SYMBOLS[report.verdict]} {VERDICT_WORDS[report.verdict]}"
        yield self.line((f"{word}:", _STYLES[report.verdict]), (sentence(report), ""))

    def target_verdict(self, target: TargetSection) -> RenderableType:
        verdict = target_verdict(target)
        word = f"{VERDICT_SYMBOLS[verdict]} {VERDICT_WORDS[verdict]}:"
        return self.line((word, _STYLES[verdict]), (target_sentence(target), ""))

    def target(self, target: TargetSection) -> Iterator[RenderableType]:
        if target.candidates:
            yield self.candidates(target)
            if any(candidate.on_front for candidate in target.candidates):
                yield self.text(f"{FRONT_SYMBOL} {FRONT_MEANING}", "dim")
            yield ""
        if target.candidates and not self._is_wide:
            yield from self.reasons(target.candidates)
            yield ""
        for variant in target.variants:
            if variant.status == "chosen":
                said = f"{name(variant.name)}: {one_line(variant.reason)}"
                yield self.line(("Run as:", "bold"), (said, ""))
        for speed in speed_on_mixes(target):
            yield self.line(("Test split:", "bold"), (speed, ""))
        if target.fidelity and target.numerics == "simulated":
            yield self.line(("Fidelity:", "bold"), (SIMULATED, ""))
        if target.artifact:
            size = figures.megabytes(target.artifact_size_bytes or target.artifact.size_bytes)
            yield self.line(("Artifact:", "bold"), (f"{target.artifact.path} ({size})", ""))
        for check in open_checks(target):
            yield self.check(check)

    def check(self, check: Check) -> Text:
        word = f"{VERDICT_SYMBOLS[check.verdict]} {VERDICT_WORDS[check.verdict]}"
        asked = f" (asked: {figures.check_threshold(check)})" if check.threshold is not None else ""
        value = f": {figures.check_value(check)}" if check.value is not None else ""
        reason = f"; {one_line(check.reason)}" if check.reason else ""
        said = f"{question(check)}{value}{asked}{reason}"
        return self.line((word, _STYLES[check.verdict]), (said, ""))

    def reasons(self, candidates: Sequence[CandidateSection]) -> Iterator[RenderableType]:
        for candidate in candidates:
            if candidate.reason:
                recipe = name(candidate.recipe.name, _MAX_NAME_CHARS)
                yield self.line((f"{recipe}:", "bold"), (one_line(candidate.reason), ""))

    def notes(self, report: Report) -> Iterator[RenderableType]:
        for warning in warnings(report):
            yield self.line(("note:", "bold"), (warning, ""))

    # ------------------------------------------------------------------- candidates

    def candidates(self, target: TargetSection) -> Table:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        mixes = mix_names([candidate.latency for candidate in target.candidates])
        title = f"{place_name(target)}, development split"
        table = Table(
            title=self.text(title),
            title_justify="left",
            box=SIMPLE_HEAD,
            pad_edge=False,
            show_edge=False,
            collapse_padding=True,
        )
        table.add_column("recipe", overflow="fold", min_width=20)  # int8-attention-float
        figures_of = ("size", "mean\ncosine", _overlap_header(target.candidates))
        for header in figures_of:
            table.add_column(header, justify="right", no_wrap=True)
        for mix in mixes:
            table.add_column(self._mix_header(mix), justify="right", no_wrap=True)
        table.add_column("outcome", no_wrap=True)
        if self._is_wide:
            table.add_column("reason", overflow="fold", ratio=1)
        for candidate in target.candidates:
            table.add_row(*self._row(candidate, mixes))
        return table

    def _mix_header(self, mix: str) -> Text:
        return self.text("× FP32").append("\n").append(self.text(mix.removeprefix("mix-"), "", 12))

    def _row(self, candidate: CandidateSection, mixes: Sequence[str]) -> list[Text]:
        fidelity, style = candidate.fidelity, _OUTCOME_STYLES[candidate.status]
        overlap = fidelity.overlap_at_k if fidelity else None
        cells = [
            name(candidate.recipe.name, _MAX_NAME_CHARS),
            figures.megabytes(candidate.size_bytes),
            figures.cosine(fidelity.mean_cosine.value if fidelity else None),
            figures.percent(overlap.value if overlap else None),
            *(figures.ratio(figures.speedup_of(candidate.latency, mix)) for mix in mixes),
            _OUTCOMES[candidate.status] + (f" {FRONT_SYMBOL}" if candidate.on_front else ""),
        ]
        if self._is_wide:
            cells.append(one_line(candidate.reason))
        return [self.text(cell, style) for cell in cells]


def _overlap_header(candidates: Sequence[CandidateSection]) -> str:
    ks = [candidate.fidelity.k for candidate in candidates if candidate.fidelity]
    return f"overlap\n@{ks[0]}" if ks else "overlap"
