"""The simulation of the gates, small: it finds what it should, and notices a gate that is wrong."""

from __future__ import annotations

import json
from dataclasses import replace

from benchmarks import gate_power
from benchmarks.gate_power import is_right, main, measure


def test_enough_queries_are_hardly_ever_wrong():
    power = measure(1050, 60, seed=1)
    assert power.false_alarms <= 0.05
    assert power.missed <= 0.15  # sixty runs tell no more
    assert power.gate_false_alarms == power.gate_missed == 0.0


def test_too_few_let_a_loss_through():
    power = measure(60, 40, seed=1)
    assert power.missed > 0.05
    assert not is_right(power)


def test_a_gate_that_passes_everything_is_noticed(monkeypatch):
    real = gate_power.compare_estimates
    monkeypatch.setattr(
        gate_power, "compare_estimates", lambda *a: replace(real(*a), verdict="pass", reason="")
    )
    assert measure(1050, 10, seed=1).missed == 1.0


def test_a_gate_that_fails_everything_is_noticed(monkeypatch):
    real = gate_power.compare_estimates
    monkeypatch.setattr(
        gate_power, "compare_estimates", lambda *a: replace(real(*a), verdict="fail")
    )
    assert not is_right(measure(1050, 10, seed=1))


def test_the_same_seed_gives_the_same_file(tmp_path, monkeypatch):
    monkeypatch.setattr(gate_power, "SIZES", (100,))
    rows = []
    for name in ("a.json", "b.json"):
        main(["--runs", "5", "-o", str(tmp_path / name)])
        rows.append(json.loads((tmp_path / name).read_text())["rows"])
    assert rows[0] == rows[1]
