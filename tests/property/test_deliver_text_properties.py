"""Whatever a text holds, it stays inside its place, and figures never flatter."""

import html
import math
import unicodedata
from decimal import ROUND_CEILING
from pathlib import PurePosixPath

from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from exporter.deliver.folders import is_safe_relative
from exporter.deliver.report.figures import rounded
from exporter.deliver.report.markup import code, code_block, escape, table
from exporter.deliver.report.text import shorten, shorten_middle, visible

PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
# Mostly the characters that mean something to Markdown, HTML or a terminal.
NASTY = st.text(
    st.one_of(
        st.sampled_from("`|*_[]()<>&#!\\~$@:/\n\r\t\x1b\u202e\u2068\u2069-+=1. a"), st.characters()
    )
)
BREAKS = set("\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029")


@given(NASTY)
def test_a_visible_text_is_one_line_of_visible_characters(text):
    shown = visible(text)
    assert not BREAKS & set(shown)
    assert not [
        char
        for char in shown
        if unicodedata.category(char) in ("Cc", "Cs")
        or char in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\ufeff\u200b"
    ]
    assert shown.count("\u2068") == shown.count("\u2069")
    assert visible(shown) == shown


@given(NASTY)
def test_an_escaped_text_is_plain_text_wherever_it_stands(text):
    for place in (f"- {escape(text)}", f"**PASS**: {escape(text)}.", escape(text)):
        blocks = [token.type.rsplit("_", 1)[0] for token in PARSER.parse(place)]
        assert set(blocks) <= {"bullet_list", "list_item", "paragraph", "inline"}
        assert blocks.count("bullet_list") == (2 if place.startswith("- ") else 0)
        inline = [child for token in PARSER.parse(place) for child in token.children or ()]
        kinds = {child.type for child in inline}
        assert kinds <= {"text", "text_special", "strong_open", "strong_close"}


@given(NASTY)
def test_an_escaped_text_reads_as_the_text(text):
    rendered = MarkdownIt("commonmark", {"html": False}).renderInline(f"x{escape(text)}x")
    read = html.unescape(rendered).removeprefix("x").removesuffix("x")
    assert read.strip("\u2068\u2069 ") == visible(text).strip("\u2068\u2069 ")


@given(NASTY, NASTY)
def test_cells_stay_in_their_cells(first, second):
    rows = PARSER.parse(table(("a", "b"), [(escape(first), code(second))]))
    assert sum(token.type == "td_open" for token in rows) == 2
    assert sum(token.type == "tr_open" for token in rows) == 2


@given(NASTY)
def test_a_code_span_holds_the_text_and_nothing_else(text):
    spans = PARSER.parseInline(code(text, in_table=False))[0].children
    if visible(text):
        assert [span.type for span in spans] == ["code_inline"]
        assert spans[0].content.strip("\u2068\u2069 ") == visible(text).strip("\u2068\u2069 ")


@given(NASTY)
def test_a_code_block_is_one_block(text):
    blocks = PARSER.parse(f"before\n\n{code_block(text)}\nafter\n")
    assert [b.type for b in blocks if b.type != "inline"] == [
        "paragraph_open",
        "paragraph_close",
        "fence",
        "paragraph_open",
        "paragraph_close",
    ]


@given(NASTY, st.integers(4, 30))
def test_shortened_texts_fit(text, limit):
    assert len(shorten_middle(text, limit)) <= limit
    assert len(shorten(text, limit).rstrip("\u2069")) <= limit


@given(st.floats(-1e6, 1e6), st.integers(0, 6))
def test_rounding_goes_down_and_intervals_outwards(value, digits):
    down, up = float(rounded(value, digits)), float(rounded(value, digits, ROUND_CEILING))
    assert down <= value <= up
    assert up - down <= 10.0**-digits * (1 + 1e-6) + 1e-9


@given(st.floats(0, 1, exclude_max=True))
def test_only_an_exact_one_is_shown_as_one(value):
    assert not rounded(value, 5).startswith("1")
    assert not math.isclose(float(rounded(value, 1, scale=100)), 100.0, abs_tol=1e-9)


@given(st.text(st.sampled_from("ab./\\\0 ")))
def test_a_safe_path_never_climbs(name):
    if is_safe_relative(name):
        path = PurePosixPath("/bundle") / name
        assert path.is_relative_to("/bundle")
        assert path != PurePosixPath("/bundle")
        assert ".." not in path.parts
