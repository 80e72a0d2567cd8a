"""The terminal table: fits, says everything in words, and survives hostile texts."""

import io
import os
import re
from pathlib import Path

import pytest
from deliver_records import CASES
from rich.cells import cell_len
from rich.console import Console

from exporter.deliver.report import document_of, parse_report, terminal_table, to_json

GOLDEN = Path(__file__).parents[2] / "golden" / "report"
WIDTHS = (80, 120)


def rendered(name: str, width: int, *, encoding: str = "utf-8", colours: bool = False) -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    console = Console(
        file=stream,
        width=width,
        force_terminal=colours,
        color_system="truecolor" if colours else None,
        legacy_windows=False,
    )
    console.print(terminal_table(parse_report(to_json(document_of(CASES[name])))))
    text = stream.buffer.getvalue().decode(encoding)
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", CASES)
def test_golden(name, width):
    """Set UPDATE_GOLDEN=1 to write the files anew, then read the difference."""
    path = GOLDEN / f"{name}-{width}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(rendered(name, width), encoding="utf-8")
    assert rendered(name, width) == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [*WIDTHS, 60])
@pytest.mark.parametrize("name", CASES)
def test_no_line_is_wider_than_the_terminal(name, width):
    assert max(cell_len(line) for line in rendered(name, width).splitlines()) <= width


@pytest.mark.parametrize("name", CASES)
def test_colour_says_nothing_that_words_do_not(name):
    coloured = rendered(name, 120, colours=True)
    assert "\x1b[" in coloured
    without = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    stripped = [line.rstrip() for line in without.splitlines()]
    assert stripped == rendered(name, 120).splitlines()


@pytest.mark.parametrize("name", CASES)
def test_a_terminal_that_knows_ascii_only_is_not_broken(name):
    text = rendered(name, 80, encoding="ascii")
    assert text.isascii()
    assert any(word in text for word in ("PASS:", "FAIL:", "INCONCLUSIVE:", "NOT RUN:"))


def test_the_verdict_and_the_checks_that_did_not_pass_are_there():
    text = rendered("fail", 120)
    assert text.startswith("✗ FAIL: int8 for openvino")
    assert "✗ FAIL cosine of the worst 1 % of texts: 0.96999 (asked: ≥ 0.97000)" in text
    assert "✗ FAIL size of the artifact: 45.6 MB (asked: ≤ 40.0 MB)" in text
    assert "PASS" not in text


def test_every_candidate_says_what_became_of_it_and_why():
    for width in WIDTHS:
        text = rendered("pass", width)
        for word in ("chosen", "eligible", "dropped", "failed", "slower than bfloat16"):
            assert word in text


def test_hostile_texts_send_nothing_to_the_terminal():
    text = rendered("hostile", 120)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "<script>" in text
