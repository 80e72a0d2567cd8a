"""The matrix of who may share an index in a terminal: members are numbered, so that it fits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from exporter.deliver.report.figures import interval, percent, percent_estimate
from exporter.deliver.report.markdown_compatibility import ASYMMETRIC, SYMBOLS, UNDECIDED
from exporter.deliver.report.text import name, one_line, visible
from exporter.values import Compatibility, CompatibilityCell, SpaceMember, Survival, Upgrade

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

_MAX_WITH_INTERVALS = 5
"""From six members on, 80 columns hold the figures alone; the JSON has all intervals."""

_SURVIVAL: Mapping[Survival, str] = {
    "yes": "✓ the index survives",
    "degraded": "~ the index survives, degraded",
    "no": "✗ the index does not survive",
}


def upgrade_line(upgrade: Upgrade) -> str:
    """Return the answer about an upgrade in one line, with the pair that decided."""
    doubt = "" if upgrade.decided else " (not decided)"
    return f"{_SURVIVAL[upgrade.survives]}{doubt}: {visible(one_line(upgrade.reason))}"


def compatibility_table(matrix: Compatibility) -> Group:
    """Return what a rich console prints: queries by the row, documents by the column."""
    from rich.console import Group
    from rich.text import Text

    numbered = enumerate(matrix.members, start=1)
    legend = [f"{i} {_described(one)}" for i, one in numbered]
    missing = [
        f"not compared: {name(m.name)}: {visible(one_line(m.reason))}" for m in matrix.missing
    ]
    around = (_title(matrix), *legend), (_marks(matrix), *missing)
    before, after = ([Text(line) for line in lines] for lines in around)
    return Group(*before, _grid(matrix), *after)


def _described(member: SpaceMember) -> str:
    simulated = ", simulated here" if member.numerics == "simulated" else ""
    return f"{name(member.name)}{simulated}   space {member.space_id}"


def _grid(matrix: Compatibility) -> Table:
    from rich.table import Table
    from rich.text import Text

    numbers = [str(number) for number in range(1, len(matrix.members) + 1)]
    table = Table("q ╲ d", *numbers)
    names = [one.name for one in matrix.members]
    with_intervals = len(names) <= _MAX_WITH_INTERVALS
    for number, queries in zip(numbers, names, strict=True):
        cells = [matrix.cell(queries, documents) for documents in names]
        table.add_row(number, *(Text(_cell(cell, with_intervals)) for cell in cells))
    return table


def _title(matrix: Compatibility) -> str:
    reference = matrix.members[0].name
    own = matrix.cell(reference, reference).overlap_at_k
    exact = (matrix.index, matrix.store_precision) == ("flat", "float32")
    loss = "" if exact else f" (it finds {percent_estimate(own)} of exact search's)"
    return (
        f"Queries by the row, documents by the column: share kept of the {matrix.k} neighbours "
        f"that FP32 on both sides finds in {matrix.index}, {matrix.store_precision}{loss}; "
        f"{name(matrix.evaluation.name)}, {own.num_samples} queries"
    )


def _marks(matrix: Compatibility) -> str:
    return (
        f"{SYMBOLS['drop-in']} drop-in from {percent(matrix.min_drop_in)}  "
        f"{SYMBOLS['degraded']} degraded  "
        f"{SYMBOLS['re-index']} re-index below {percent(matrix.min_degraded)}  "
        f"{UNDECIDED} not decided  {ASYMMETRIC} asymmetric"
    )


def _cell(cell: CompatibilityCell, with_interval: bool) -> str:
    doubt = "" if cell.decided else UNDECIDED
    mark = ASYMMETRIC if cell.is_asymmetric else ""
    figure = f"{SYMBOLS[cell.exchange]}{doubt} {percent(cell.kept.value)}{mark}"
    if not with_interval:
        return figure
    low, _, high = interval(cell.kept.interval, 1, scale=100).strip("[]").partition(", ")
    return f"{figure}\n{low}–{high}"
