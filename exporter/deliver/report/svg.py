"""SVG parts as text: foreign words escaped, light and dark by the reader's preference."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from html import escape as escape_xml

from exporter.deliver.report.text import name

FONT_PX = 12
"""Size of all text but the title."""
_CHAR_EM = 0.602
"""Advance of a character in the usual monospaced fonts (DejaVu Sans Mono, Menlo)."""

# Plain classes with a media query: some renderers know no custom properties.
_LIGHT = {"paper": "#ffffff", "ink": "#1f2328", "faint": "#59636e", "grid": "#d1d9e0"} | {
    "first": "#0969da",
    "second": "#bc4c00",
}
_DARK = {"paper": "#0d1117", "ink": "#e6edf3", "faint": "#9198a1", "grid": "#3d444d"} | {
    "first": "#4493f8",
    "second": "#f0883e",
}


def document(title: str, description: str, width: int, height: int, parts: Sequence[str]) -> str:
    """Put parts on paper, with a title and a description for those who cannot see them.

    Args:
        title: what the plot is; any text.
        description: what it shows, in words; any text.
        width: in px.
        height: in px.
        parts: ready elements.
    """
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" aria-labelledby="title desc">'
    )
    lines = [
        head,
        f'<title id="title">{foreign(title, 200)}</title>',
        f'<desc id="desc">{foreign(description, 1000)}</desc>',
        f"<style>{_style()}</style>",
        f'<rect class="paper" width="{width}" height="{height}"/>',
        *parts,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def foreign(text: str, max_chars: int) -> str:
    """Make any text harmless in an element or an attribute, its middle cut if it is long."""
    return escape_xml(name(text, max_chars))


def text(x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> str:
    """Write one line; `y` is its baseline, `content` any text."""
    return (
        f'<text class="{kind or "ink"}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
        f"{foreign(content, 200)}</text>"
    )


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """Draw a straight line."""
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def rectangle(x: float, y: float, width: float, height: float, kind: str) -> str:
    """Draw a rectangle, a bar for instance."""
    return (
        f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" '
        f'width="{max(width, 0.0):.1f}" height="{height:.1f}"/>'
    )


def path(points: Sequence[tuple[float, float]], kind: str, *, closed: bool = False) -> str:
    """Draw straight lines from point to point."""
    steps = " L ".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path class="{kind}" d="M {steps}{" Z" if closed else ""}"/>'


def circle(x: float, y: float, radius: float, kind: str) -> str:
    """Draw a circle."""
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"/>'


def text_width(content: str) -> float:
    """Return the width of monospaced text in px; East Asian characters take two places."""
    places = sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in content)
    return places * FONT_PX * _CHAR_EM


def ticks(low: float, high: float, count: int = 5) -> tuple[tuple[float, ...], int]:
    """Return round values in [low, high], about `count`, and the decimals that they need."""
    rough = (high - low) / count
    power = math.floor(math.log10(rough))
    step = next(m * 10.0**power for m in (1.0, 2.0, 5.0, 10.0) if m * 10.0**power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple(i * step for i in range(first, last + 1)), max(0, -math.floor(math.log10(step)))


def _style() -> str:
    fonts = "font-family:ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace"
    shape = (
        f"text{{{fonts};font-size:{FONT_PX}px;paint-order:stroke;stroke-width:3}}.title{{font-size:15px;font-weight:bold}}"
        ".strong{font-weight:bold}.thin{stroke-width:1}.axis{stroke-width:1}"
        ".leader{stroke-width:1}.bar{stroke:none}.outline{stroke-width:1.2}.mark{stroke-width:2}"
        ".front{fill:none;stroke-width:1.5;stroke-dasharray:5 3}.curve{fill:none;stroke-width:2}"
    )
    return f"{shape}{_colours(_LIGHT)}@media (prefers-color-scheme:dark){{{_colours(_DARK)}}}"


def _colours(of: dict[str, str]) -> str:
    return (
        f".paper{{fill:{of['paper']}}}text{{stroke:{of['paper']}}}"
        f".ink,.title,.strong{{fill:{of['ink']}}}.faint{{fill:{of['faint']}}}"
        f".thin{{stroke:{of['grid']}}}.axis,.leader{{stroke:{of['faint']}}}"
        f".bar{{fill:{of['first']}}}.outline{{fill:{of['paper']};stroke:{of['second']}}}"
        f".mark{{fill:{of['first']};stroke:{of['first']}}}"
        f".hollow{{fill:{of['paper']}}}.front,.curve{{stroke:{of['first']}}}"
    )
