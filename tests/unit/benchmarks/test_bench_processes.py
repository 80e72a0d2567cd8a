"""Wall time and peak memory of a command's whole tree, and the budgets they are held to."""

from __future__ import annotations

import os
import sys

import pytest

from benchmarks.process_tree import Watched, watch
from benchmarks.wall import Budgets, Run, exceeded_budgets, measure
from targets.errors import StepError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

MB = 10**6
# The grandchild waits until somebody has looked at it at least once or twice.
GRANDCHILD = "x = bytearray(120_000_000); import threading; threading.Event().wait(0.3)"
CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {GRANDCHILD!r}])"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}])"


def run_of(wall_s: float, peak_bytes: int = 10**9) -> Run:
    cost = Watched(
        exit_code=0, wall_s=wall_s, peak_rss_bytes=peak_bytes, peak_command="", num_processes=1
    )
    return Run(cost=cost, stage_s={}, stages_from_cache=0)


def test_a_grandchild_s_peak_is_found(tmp_path):
    found = watch([sys.executable, "-c", PARENT], os.environ, tmp_path / "stderr")
    assert found.exit_code == 0
    assert found.num_processes == 3
    assert 120 * MB < found.peak_rss_bytes < 200 * MB
    assert "bytearray" in found.peak_command


def test_processes_of_others_do_not_count(tmp_path):
    kept = bytearray(200 * MB)
    found = watch([sys.executable, "-c", "pass"], os.environ, tmp_path / "stderr")
    assert found.num_processes <= 1
    assert found.peak_rss_bytes < len(kept)


def test_exit_code_and_stderr_are_kept(tmp_path):
    command = [sys.executable, "-c", "import sys; sys.exit('too bad')"]
    assert watch(command, os.environ, tmp_path / "stderr").exit_code == 1
    assert "too bad" in (tmp_path / "stderr").read_text()


@pytest.mark.parametrize(
    ("cold", "warm", "exceeded"),
    [
        (run_of(119), [run_of(4.9)] * 3, ()),
        (run_of(121), [run_of(4.9)] * 3, ("cold",)),
        (run_of(119), [run_of(4), run_of(6), run_of(6)], ("warm",)),
        (run_of(119), [run_of(4), run_of(4), run_of(60)], ()),
        (run_of(119), [run_of(4), run_of(4), run_of(4, 3 * 10**9)], ("peak",)),
        (run_of(500, 3 * 10**9), [run_of(50)], ("cold", "warm", "peak")),
    ],
)
def test_budgets(cold, warm, exceeded):
    assert exceeded_budgets(cold, warm, Budgets()) == exceeded


def test_an_export_that_fails_is_an_error_with_its_last_words():
    with pytest.raises(StepError, match="exit code 2") as caught:
        measure(1, ["--no-such-flag"])
    assert "no-such-flag" in caught.value.why
