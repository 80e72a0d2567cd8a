"""Figures of prepared bundles, gathered from their reports and from nowhere else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import simulated
from exporter.deliver.report import document_of
from exporter.steps.recorded import Recorded
from targets.errors import StorageError
from tests.unit.deliver.deliver_records import RECORD

REPORT = document_of(RECORD)
SECTION = REPORT.targets[0]


def recorded(monkeypatch: pytest.MonkeyPatch, **changes: str) -> None:
    provenance = replace(
        REPORT.provenance, command="exporter export --eval /some/where/cranfield -o /else/where/out"
    )
    report = replace(REPORT, targets=(replace(SECTION, **changes),), provenance=provenance)
    found = Recorded(name="out", report=report, sha256="0" * 64)
    monkeypatch.setattr(simulated, "read_recorded", lambda path: found)


def test_figures_are_the_report_s_and_folders_stay_at_home(monkeypatch):
    recorded(monkeypatch, numerics="simulated")
    (entry,) = simulated.gather([Path("out")])
    assert entry["command"] == "exporter export --eval cranfield -o out"
    assert entry["min_cosine"] == SECTION.fidelity.min_cosine
    told = {one["name"]: one["value"] for one in entry["checks"]}
    assert told["mean_cosine"] == SECTION.fidelity.mean_cosine.value
    assert "speedup" not in told


def test_what_a_device_ran_is_no_simulation(monkeypatch):
    recorded(monkeypatch, numerics="device")
    with pytest.raises(ValueError, match="out holds no simulated target"):
        simulated.gather([Path("out")])


def test_a_folder_that_is_no_bundle_is_refused(tmp_path):
    with pytest.raises(StorageError):
        simulated.gather([tmp_path])
