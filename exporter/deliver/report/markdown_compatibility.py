"""Which artifacts may share an index: the matrix of the Markdown report."""

from __future__ import annotations

from collections.abc import Iterator

from exporter.deliver.report.figures import NONE, percent, percent_estimate, signed_estimate
from exporter.deliver.report.markup import bullets, code, escape, table
from exporter.deliver.report.text import name
from exporter.values import Compatibility, CompatibilityCell

ASYMMETRIC = "⇄"
UNDECIDED = "?"
SYMBOLS = {"drop-in": "✓", "degraded": "~", "re-index": "✗"}


def compatibility_section(matrix: Compatibility | None) -> str:
    """Render the matrix with what its marks mean; "" where there is none."""
    if matrix is None:
        return ""
    parts = ["## One index for several artifacts\n", f"{_setting(matrix)}\n", _grid(matrix)]
    remarks = [*_remarks(matrix)]
    if remarks:
        parts.append(bullets(remarks))
    parts.append(_members(matrix))
    return "\n".join(parts)


def cell_text(cell: CompatibilityCell) -> str:
    """Write one pair: what it is, what it keeps, and whether it is asymmetric."""
    mark = f" {ASYMMETRIC}" if cell.is_asymmetric else ""
    doubt = UNDECIDED if not cell.decided else ""
    figure = percent_estimate(cell.kept)
    return f"{SYMBOLS[cell.exchange]} {cell.exchange}{doubt} {figure}{mark}"


def _setting(matrix: Compatibility) -> str:
    texts = matrix.evaluation
    return escape(
        f"Rows embed the queries, columns the documents: the share kept of the {matrix.k} "
        f"neighbours that FP32 on both sides finds in the same index ({matrix.index}, vectors in "
        f"{matrix.store_precision}), on {name(texts.name)}. Drop-in from "
        f"{percent(matrix.min_drop_in)}, re-index below {percent(matrix.min_degraded)}, by the "
        f"interval. {UNDECIDED}: the sample does not decide. {ASYMMETRIC}: the opposite direction "
        "differs by more than a hundredth and by more than chance."
    )


def _grid(matrix: Compatibility) -> str:
    names = [one.name for one in matrix.members]
    headers = ("queries by ↓ documents by →", *(code(name(one)) for one in names))
    rows = [
        (code(name(queries)), *(cell_text(matrix.cell(queries, one)) for one in names))
        for queries in names
    ]
    return table(headers, rows)


def _remarks(matrix: Compatibility) -> Iterator[str]:
    reference = matrix.members[0].name
    own = matrix.cell(reference, reference)
    if (matrix.index, matrix.store_precision) != ("flat", "float32"):
        yield escape(
            f"this index finds {percent_estimate(own.overlap_at_k)} of what exact search in "
            "float32 finds, with FP32 on both sides"
        )
    for cell in matrix.cells:
        pair = f"{code(name(cell.queries_by), in_table=False)} → " + code(
            name(cell.documents_by), in_table=False
        )
        if cell.exchange != "drop-in":
            yield f"{pair}: {cell.exchange}, {escape(cell.reason)}"
    for one in matrix.missing:
        yield f"not compared: {code(name(one.name), in_table=False)}: {escape(one.reason)}"


def _members(matrix: Compatibility) -> str:
    headers = ("artifact", "embedding space", "kernels", "recall on labels", "sha256")
    rows = []
    for one in matrix.members:
        own = matrix.cell(one.name, one.name)
        kernels = "the device's" if one.numerics == "device" else "simulated here"
        rows.append(
            (
                code(name(one.name)),
                code(one.space_id),
                kernels,
                _recall(own),
                code(one.artifact_sha256),
            )
        )
    return (
        table(headers, rows) + "\nEmbeddings with the same space may be mixed in one index; others "
        "only as the table says.\n"
    )


def _recall(cell: CompatibilityCell) -> str:
    if cell.recall_at_k is None or cell.recall_difference is None:
        return NONE
    difference = signed_estimate(cell.recall_difference)
    return f"{percent(cell.recall_at_k.value)}, to FP32 {difference}"
