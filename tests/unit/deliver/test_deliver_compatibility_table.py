"""The matrix in a terminal: it fits, every mark is explained, and nothing foreign is obeyed."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from deliver_records import COMPATIBILITY, HOSTILE_RECORD, cell, member
from rich.console import Console

from exporter.deliver.report import compatibility_table, upgrade_line
from exporter.values import Compatibility, Upgrade


def shown(matrix: Compatibility, width: int = 80) -> list[str]:
    stream = io.StringIO()
    Console(file=stream, width=width, force_terminal=False).print(compatibility_table(matrix))
    return stream.getvalue().splitlines()


def of_size(number: int) -> Compatibility:
    names = [f"target{i} int8" for i in range(number)]
    cells = [cell(a, b, "drop-in", 0.97, None) for a in names for b in names]
    members = tuple(member(name, "float32", "1") for name in names)
    return replace(COMPATIBILITY, members=members, cells=tuple(cells), missing=())


@pytest.mark.parametrize("number", [2, 5, 6])
def test_it_fits_eighty_columns(number):
    lines = shown(of_size(number))
    assert max(len(line) for line in lines) <= 80
    assert not any("…" in line for line in lines)
    assert sum(line.count("97.0 %") for line in lines) == number * number


def test_marks_numbers_and_what_is_missing():
    text = "\n".join(shown(COMPATIBILITY, 120))
    assert "3 onnxruntime-mobile int8 on emulated:cortex-a72, simulated here" in text
    assert "~? 95.3 %⇄" in text
    assert "✗ 51.0 %⇄" in text
    assert "not compared: tensorrt: there is no NVIDIA driver" in text


def test_a_lossy_index_says_what_it_loses():
    lossy = replace(COMPATIBILITY, index="hnsw16", store_precision="int8")
    assert "hnsw16, int8 (it finds 100.0 %" in " ".join(shown(lossy, 200))
    assert "it finds" not in " ".join(shown(COMPATIBILITY, 200))


def test_foreign_names_are_shown_and_not_obeyed():
    text = "\n".join(shown(HOSTILE_RECORD.compatibility))
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "<script>" in text


@pytest.mark.parametrize(("survives", "decided", "said"), [
    ("yes", True, "✓ the index survives: a"), ("no", True, "✗ the index does not survive: a"),
    ("degraded", False, "~ the index survives, degraded (not decided): a"),
])  # fmt: skip
def test_an_upgrade_is_answered_in_one_line(survives, decided, said):
    upgrade = Upgrade(
        survives=survives,
        decided=decided,
        queries_by=(),
        documents_by=(),
        worst=None,
        reason="a\n\x1b[31mb",
    )
    line = upgrade_line(upgrade)
    assert line.startswith(said)
    assert "\x1b" not in line
    assert "\n" not in line
