"""Markdown (GitHub flavour) from parts, with every foreign text kept inside its place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from exporter.deliver.report.figures import NONE
from exporter.deliver.report.text import isolated, visible

# An underscore within a word and a bracket that no link follows mean nothing: names and
# intervals stay readable in the raw text.
_SPECIAL = re.compile(r"([\\`*|~$#]|(?<![^\W_])_|_(?![^\W_])|^\[|\](?=[(\[:]))")
_MENTION = re.compile(r"(?<!\w)@(?=\w)")
_STARTS_A_BLOCK = re.compile(r"^([-+=]|\d+(?=[.)]))")


def escape(text: str) -> str:
    """Make a text plain inline Markdown: no markup, HTML, link, mention or line break."""
    safe = visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    safe = _SPECIAL.sub(r"\\\1", safe)
    # Hosts turn bare addresses into links and @names into mentions.
    safe = safe.replace("://", "&#58;//").replace("www.", "www&#46;")
    safe = _MENTION.sub("&#64;", safe)
    return isolated(_STARTS_A_BLOCK.sub(_defused, safe))


def _defused(match: re.Match[str]) -> str:
    first = match.group(1)
    return f"\\{first}" if not first.isdigit() else f"&#{ord(first[0])};{first[1:]}"


def code(text: str, *, in_table: bool = True) -> str:
    """Show a text verbatim as a code span; an empty one as a dash.

    A pipe ends a table's cell even inside a code span, and only there its escape works.
    """
    shown = isolated(visible(text))
    if not shown:
        return NONE
    fence = "`" * (_longest_run(shown) + 1)
    pad = " " if "`" in (shown[0], shown[-1]) else ""
    span = f"{fence}{pad}{shown}{pad}{fence}"
    return span.replace("|", "\\|") if in_table else span


def code_block(text: str) -> str:
    """Show a text verbatim as a block."""
    shown = visible(text)
    fence = "`" * max(3, _longest_run(shown) + 1)
    return f"{fence}text\n{shown}\n{fence}\n"


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], numeric: str = "") -> str:
    """Write a table of ready cells.

    Args:
        headers: the column titles.
        rows: cells, already escaped.
        numeric: one letter a column: "r" aligns right, anything else left.
    """
    aligned = numeric.ljust(len(headers))
    rule = ["---:" if kind == "r" else "---" for kind in aligned]
    lines = [_line(headers), _line(rule), *(_line(row) for row in rows)]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def bullets(items: Iterable[str]) -> str:
    """Write a list of ready items."""
    return "".join(f"- {item}\n" for item in items)
