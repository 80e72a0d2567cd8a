"""Foreign texts made safe to show: one line, nothing invisible, nothing that reorders."""

from __future__ import annotations

import unicodedata

_RIGHT_TO_LEFT = frozenset(("R", "AL", "AN"))
# Join controls are part of ordinary text (emoji sequences, Persian, Indic scripts).
_JOINERS = "\u200c\u200d"
_INVISIBLE = frozenset(("Cc", "Cf", "Cs", "Co", "Cn"))
_ISOLATES = _FIRST_STRONG_ISOLATE, _POP_ISOLATE = "\u2068\u2069"


def visible(text: str) -> str:
    """Put a text on one line and show control and formatting characters as escapes.

    Terminal escapes, bidirectional overrides and zero-width characters would change what
    is around them or hide what is there. Balanced isolates do neither.
    """
    kept = _JOINERS + (_ISOLATES if _open_isolates(text) == 0 else "")
    return "".join(_shown(char, kept) for char in " ".join(text.split()))


def _shown(char: str, kept: str) -> str:
    if char in kept or unicodedata.category(char) not in _INVISIBLE:
        return char
    code = ord(char)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def one_line(text: str) -> str:
    """Join the lines of a message into one, so that its parts stay apart."""
    return "; ".join(line.strip() for line in text.splitlines() if line.strip())


def shorten(text: str, max_chars: int) -> str:
    """Cut a text behind `max_chars` characters, the last of them an ellipsis."""
    if len(text) <= max_chars:
        return text
    cut = text[: max_chars - 1].rstrip() + "…"
    return cut + _POP_ISOLATE * max(0, _open_isolates(cut))


def shorten_middle(text: str, max_chars: int) -> str:
    """Cut out the middle of a name: both ends tell names apart."""
    if len(text) <= max_chars:
        return text
    tail = (max_chars - 1) // 2
    return f"{text[: max_chars - 1 - tail]}…{text[-tail:]}"


def name(text: str, max_chars: int = 60) -> str:
    """Make a foreign name fit for the middle of a sentence."""
    return isolated(shorten_middle(visible(text), max_chars))


def isolated(text: str) -> str:
    """Keep right-to-left letters from reordering the figures beside them."""
    is_mixed = any(unicodedata.bidirectional(char) in _RIGHT_TO_LEFT for char in text)
    if not is_mixed or _FIRST_STRONG_ISOLATE in text:
        return text
    return f"{_FIRST_STRONG_ISOLATE}{text}{_POP_ISOLATE}"


def _open_isolates(text: str) -> int:
    """Count the isolates left open; -1 where one is closed that was never opened."""
    depth = 0
    for char in text:
        depth += (char == _FIRST_STRONG_ISOLATE) - (char == _POP_ISOLATE)
        if depth < 0:
            return -1
    return depth
