"""Distributions of other people beside ours: found, exported to, and kept from doing harm."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import vendors
from tiny_models import BERT, build

from exporter.deliver.manifest import verify_bundle
from targets.hashing import sha256_file
from targets.registry import BUILT_IN

pytest.importorskip("onnxruntime")
VOCABULARY = 300
"""More than the tokenizer's: the ids of a runner's own texts reach 100."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """A finished command."""

    code: int
    out: str
    err: str
    folder: Path

    @property
    def sections(self) -> dict[str, dict[str, Any]]:
        """What the report says of each target."""
        report = json.loads((self.folder / "reports" / "report.json").read_text("utf-8"))
        return {section["target"]: section for section in report["targets"]}


Run = Callable[..., Ran]


@pytest.fixture(scope="module")
def good_company(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The vendor's distribution alone."""
    scratch = tmp_path_factory.mktemp("good")
    return vendors.install(scratch / "installed", scratch)


@pytest.fixture(scope="module")
def bad_company(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same beside a thief, a broken one, liars, and one whose probe raises."""
    scratch = tmp_path_factory.mktemp("bad")
    others = (vendors.THIEF, vendors.BROKEN, vendors.LIARS, vendors.RAISING)
    return vendors.install(scratch / "installed", scratch, *others)


@pytest.fixture
def run(tmp_path: Path, shared_cache: Path) -> Run:
    """Run `exporter` in a child process that sees what was installed."""

    def run_exporter(installed: Path, *arguments: str) -> Ran:
        done = subprocess.run(
            [sys.executable, "-m", "exporter", *arguments],
            env=vendors.environment(installed, EMBEDDING_EXPORTER_CACHE=str(shared_cache)),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        return Ran(
            code=done.returncode, out=done.stdout, err=done.stderr, folder=tmp_path / "bundle"
        )

    return run_exporter


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def roomy() -> tuple[Any, Any]:
        from transformers import BertModel

        model, tokenizer = BERT.build()
        model.config.vocab_size = VOCABULARY
        return BertModel(model.config), tokenizer

    return build(replace(BERT, build=roomy), tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def tiny_texts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Calibration and evaluation files that share nothing."""
    folder = tmp_path_factory.mktemp("texts")
    things = ("cat", "dog", "house", "tree", "river", "stone", "bird", "cloud", "street", "lamp")
    lines = [
        f"the {things[i % 10]} number {i} is beside the {things[i // 10 % 10]}" for i in range(500)
    ]
    calibration, evaluation = folder / "calibration.txt", folder / "evaluation.txt"
    calibration.write_text("\n".join(lines[:100]))
    evaluation.write_text("\n".join(lines[100:]))
    return calibration, evaluation


@pytest.fixture
def export(run: Run, tiny_model: Path, tiny_texts: tuple[Path, Path]) -> Run:
    """Export the tiny model."""

    def run_export(installed: Path, *arguments: str) -> Ran:
        calibration, evaluation = map(str, tiny_texts)
        texts = ("--calibration", calibration, "--eval", evaluation)
        return run(
            installed, "export", "-m", str(tiny_model), "-o", "bundle", "-q", *texts, *arguments
        )

    return run_export


def rows_of(table: str) -> dict[str, list[str]]:
    """Cells of a printed table by their first; a name that comes twice is an error."""
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in table.splitlines()]
    found = [row for row in rows if row and row[0]]
    assert len({row[0] for row in found}) == len(found), "a name is listed twice"
    return {row[0]: row[1:] for row in found}


# ------------------------------------------------------------------------- good company


def test_it_is_listed_behind_ours(run, good_company):
    ran = run(good_company, "targets")
    assert ran.code == 0, ran.err
    listed = rows_of(ran.out)
    assert list(listed) == [*BUILT_IN, "acme-npu"]
    assert listed["acme-npu"][0] == "Acme NPU"
    assert listed["acme-npu"][-1] == "ready"


def test_without_the_distribution_it_is_unknown(run, tmp_path):
    ran = run(tmp_path, "export", "--target", "acme-npu", "-o", "bundle")
    assert ran.code == 2
    assert "unknown target 'acme-npu'" in ran.err


@pytest.mark.slow
def test_it_is_exported_to_and_verified(export, good_company):
    ran = export(good_company, "--target", "acme-npu", "--precision", "int8-weights")
    assert ran.code in (0, 1, 3), ran.out + ran.err
    section = ran.sections["acme-npu"]
    assert section["status"] == "verified"
    assert section["recipe"]["name"] == "int8-weights"
    verdicts = {check["name"]: check["verdict"] for check in section["checks"]}
    assert verdicts["precision"] == "pass"
    assert verdicts["mean_cosine"] == "pass"
    shipped = ran.folder / section["artifact"]["path"]
    assert shipped == ran.folder / "acme_npu" / "model.onnx"
    assert section["artifact"]["sha256"] == sha256_file(shipped)
    assert section["latency"], "this machine's clock counts, and nothing was timed"
    assert "acme-npu" in (ran.folder / "reports" / "report.md").read_text("utf-8")
    assert verify_bundle(ran.folder) == ()


@pytest.mark.slow
def test_all_takes_it_along(export, good_company):
    ran = export(good_company, "--target", "all", "--precision", "float32")
    assert set(ran.sections) == {*BUILT_IN, "acme-npu"}, ran.out + ran.err
    assert ran.sections["acme-npu"]["status"] == "verified"
    assert (ran.folder / "acme_npu" / "model.onnx").is_file()


# -------------------------------------------------------------------------- bad company


def test_each_is_listed_as_what_it_is(run, bad_company):
    ran = run(bad_company, "targets")
    assert ran.code == 0, ran.err
    listed = rows_of(ran.out)
    for name in BUILT_IN:
        assert listed[name][0] != "Stolen", "a plug-in took a built-in name"
    assert listed["acme-npu"][-1] == "ready"
    assert "broken: ModuleNotFoundError" in listed["acme-broken"][-1]
    assert "a_runtime_nobody_has" in listed["acme-broken"][-1]
    assert "its probe raised KeyError: 'no such driver'" in listed["acme-raising"][-1]


def test_the_thief_was_there_to_be_ignored(bad_company):
    """The twin of the test above: an entry point of that name does exist."""
    program = (
        "from importlib.metadata import entry_points\n"
        "from targets.registry import load_target\n"
        f"there = entry_points(group={vendors.GROUP!r}, name='openvino')\n"
        "there = [one.value for one in there]\n"
        "print('acme_thief:Thief' in there, load_target('openvino').spec.runtime)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=vendors.environment(bad_company),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["True", "OpenVINO"]


def test_a_broken_one_is_refused_by_name(run, bad_company):
    ran = run(bad_company, "export", "--target", "acme-broken", "-o", "bundle")
    assert ran.code == 2
    assert "target acme-broken cannot be loaded" in ran.err
    assert "reinstall or remove acme-broken" in ran.err


def test_a_probe_that_raises_is_a_reason_not_to_run(export, bad_company):
    ran = export(bad_company, "--target", "acme-raising")
    assert ran.code == 2, ran.err
    assert "target acme-raising cannot run" in ran.err
    assert "its probe raised KeyError: 'no such driver'" in ran.err
    assert "Traceback" not in ran.err


LIES = {
    "acme-ghost": "model.onnx is not there",
    "acme-forger": "model.onnx does not hash to what it says",
    "acme-hoarder": "weights.bin is there and not named",
    "acme-crash": "KeyError: 'no such kernel'",
}


@pytest.mark.slow
def test_liars_are_refused_by_name_and_stop_nobody(export, bad_company):
    targets = [word for name in ("acme-npu", *LIES) for word in ("--target", name)]
    ran = export(bad_company, *targets, "--precision", "float32")
    assert ran.code == 4, ran.out + ran.err
    assert "Traceback" not in ran.err
    for name, lie in LIES.items():
        section = ran.sections[name]
        assert section["status"] == "failed"
        assert re.search(rf"target {name}\b", section["reason"]), section["reason"]
        assert lie in section["reason"]
        assert section["artifact"] is None
    assert ran.sections["acme-npu"]["status"] == "verified"
    assert {path.name for path in ran.folder.glob("acme*")} == {"acme_npu"}
