"""`docs/hardware.md` shows the data as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from targets.errors import UsageError
from targets.hardware import tables
from targets.hardware.gpus import gpu_profiles
from targets.hardware.profiles import cpu_profiles

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "hardware.md").read_text("utf-8")


def test_the_page_is_up_to_date():
    wanted = tables.rewrite(PAGE)
    assert wanted == PAGE, "python -m targets.hardware.tables docs/hardware.md"


def test_a_changed_table_is_noticed():
    changed = PAGE.replace("| graviton3 |", "| graviton9 |")
    assert changed != PAGE
    assert tables.rewrite(changed) == PAGE


def test_a_missing_part_is_named():
    with pytest.raises(UsageError, match="cpus"):
        tables.rewrite(PAGE.replace("<!-- cpus -->", ""))


def test_rows_fit_their_headings_and_break_no_table():
    rows = [(tables.CPU_HEADINGS, tables.cpu_row(one)) for one in cpu_profiles()]
    rows += [(tables.CPU_DETAIL_HEADINGS, tables.cpu_detail_row(one)) for one in cpu_profiles()]
    rows += [(tables.GPU_HEADINGS, tables.gpu_row(one)) for one in gpu_profiles()]
    for headings, row in rows:
        assert len(row) == len(headings)
        assert not any("|" in cell or "\n" in cell for cell in row)


def test_every_row_of_the_data_is_on_the_page():
    for name in (*(one.name for one in cpu_profiles()), *(one.sm for one in gpu_profiles())):
        assert f"\n| {name} |" in PAGE
