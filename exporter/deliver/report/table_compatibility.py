"""The matrix of who may share an index in a terminal: members numbered, so that columns fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporter.deliver.report.figures import interval, percent, percent_estimate
from exporter.deliver.report.markdown_compatibility import ASYMMETRIC, SYMBOLS, UNDECIDED
from exporter.deliver.report.text import name
from exporter.values import Compatibility, CompatibilityCell

if TYPE_CHECKING:
    from rich.table import Table

_MAX_NAME_CHARS = 44


def compatibility_table(matrix: Compatibility) -> Table:
    """Return what a rich console prints: queries by the row, documents by the column."""
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(_title(matrix)), caption=Text(_caption(matrix)), title_justify="left",
        caption_justify="left",
    )  # fmt: skip
    table.add_column("queries by ↓\ndocuments by →", min_width=16)
    names = [one.name for one in matrix.members]
    for number in range(1, len(names) + 1):
        table.add_column(str(number), no_wrap=True)
    for number, queries in enumerate(names, start=1):
        cells = [Text(_cell(matrix.cell(queries, documents))) for documents in names]
        table.add_row(Text(f"{number} {name(queries, _MAX_NAME_CHARS)}"), *cells)
    return table


def _title(matrix: Compatibility) -> str:
    reference = matrix.members[0].name
    own = matrix.cell(reference, reference).overlap_at_k
    exact = (matrix.index, matrix.store_precision) == ("flat", "float32")
    loss = "" if exact else f", which finds {percent_estimate(own)} of exact search's"
    return (
        f"share kept of the {matrix.k} neighbours that FP32 finds in {matrix.index}, "
        f"{matrix.store_precision}{loss}; {name(matrix.evaluation.name)}, "
        f"{own.num_samples} queries"
    )


def _caption(matrix: Compatibility) -> str:
    return (
        f"{SYMBOLS['drop-in']} drop-in from {percent(matrix.min_drop_in)}  "
        f"{SYMBOLS['degraded']} degraded  "
        f"{SYMBOLS['re-index']} re-index below {percent(matrix.min_degraded)}  "
        f"{UNDECIDED} the sample does not decide  {ASYMMETRIC} asymmetric"
    )


def _cell(cell: CompatibilityCell) -> str:
    doubt = "" if cell.decided else UNDECIDED
    mark = f" {ASYMMETRIC}" if cell.is_asymmetric else ""
    bounds = interval(cell.kept.interval, 1, scale=100)
    return f"{SYMBOLS[cell.exchange]}{doubt} {percent(cell.kept.value)}{mark}\n{bounds}"
