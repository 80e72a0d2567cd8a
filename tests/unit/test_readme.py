"""What the README says is what the program does."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from exporter.config import PolicySettings
from targets.errors import ExitCode
from targets.registry import load_target, target_names

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def table_column(heading: str, column: int) -> list[str]:
    """Cells of one column of the first table below a heading."""
    section = README.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [row.strip("|").split("|")[column].strip().strip("`") for row in rows]


def test_exit_codes_are_those_of_the_program():
    assert [int(code) for code in table_column("Exit codes", 0)] == [int(code) for code in ExitCode]


def test_targets_are_those_registered():
    assert tuple(table_column("Targets", 0)) == target_names()


@pytest.mark.parametrize("name", target_names())
def test_a_target_s_row_is_its_specification(name):
    row = table_column("Targets", 0).index(name)
    spec = load_target(name).spec
    assert tuple(table_column("Targets", 2)[row].split(", ")) == spec.precisions
    assert f"[{spec.extra}]" in table_column("Targets", 3)[row]


def test_the_policy_shown_is_the_default():
    (shown,) = re.findall(r"```toml\n(\[policy\].*?)```", README, flags=re.DOTALL)
    assert tomllib.loads(shown)["policy"] == PolicySettings().model_dump(exclude_none=True)


@pytest.mark.parametrize("page", re.findall(r"\]\(([^)#:]+)\)", README))
def test_links_lead_somewhere(page):
    assert (ROOT / page).is_file()


def test_the_two_commands_are_make_targets():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for command in re.findall(r"^make (\w+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{command}:", makefile, flags=re.MULTILINE)
