"""The command line without any work behind it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from exporter.cli.app import run
from exporter.config import PolicySettings, Settings
from targets.errors import ExitCode, StepError, UsageError, worst

ROOT = Path(__file__).parents[3]


def test_help_lists_every_command(capsys):
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    for command in ("export", "targets", "check", "compatibility", "encode"):
        assert re.search(rf"^\s+{command}\s", shown, flags=re.MULTILINE)


def test_every_setting_has_a_flag(capsys):
    run(["export", "--help"])
    shown = capsys.readouterr().out
    for name in Settings.model_fields:
        flag = {
            "use_cache": "--no-cache",
            "policy": "--min-recall",
            "search_budget_s": "--search-budget",
        }.get(name)
        assert (flag or f"--{name.replace('_', '-')}") in shown


@pytest.mark.parametrize(
    "arguments", [["--nope"], ["nonsense"], ["export", "--num-samples", "x"], []]
)
def test_a_wrong_command_line_is_usage(arguments, capsys):
    assert run(arguments) == ExitCode.USAGE
    assert "Traceback" not in capsys.readouterr().err


def test_no_target_lists_the_known_ones(capsys, tmp_path):
    assert run(["export", "-o", str(tmp_path / "out"), "-q"]) == ExitCode.USAGE
    message = capsys.readouterr().err
    assert "openvino" in message
    assert "--target" in message


def test_an_unknown_target_names_the_nearest(capsys, tmp_path):
    code = run(["export", "--target", "openvin", "-o", str(tmp_path / "out"), "-q"])
    assert code == ExitCode.USAGE
    assert "openvino" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_foreign_output_folder_is_left_alone(capsys, tmp_path):
    precious = tmp_path / "precious.txt"
    precious.write_text("keep me")
    code = run(["export", "--target", "openvino", "-o", str(tmp_path), "-q"])
    assert code == ExitCode.USAGE
    assert precious.read_text() == "keep me"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("what", why="why", hint="do"), ExitCode.USAGE),
        (StepError("what", why="why", hint="do"), ExitCode.STEP_FAILED),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED),
        (ZeroDivisionError("ours"), ExitCode.BUG),
    ],
)
def test_errors_become_messages_and_codes(error, code, monkeypatch, capsys, tmp_path):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("exporter.pipeline.run_export", fail)
    assert run(["export", "--target", "openvino", "-o", str(tmp_path / "o"), "-q"]) == code
    shown = capsys.readouterr()
    assert ("Traceback" in shown.err) == (code == ExitCode.BUG)
    assert shown.out == ""


def test_the_export_script_is_the_export_command(capsys):
    assert run(["--help"], default_command="export") == 0
    assert "--target" in capsys.readouterr().out


def test_help_imports_nothing_heavy():
    """What keeps `exporter --help` below half a second."""
    program = (
        "import sys; from exporter.cli.app import run; run(['--help']);"
        "heavy = {'torch', 'transformers', 'openvino', 'onnx', 'onnxruntime', 'nncf', 'scipy',"
        " 'faiss', 'sentence_transformers', 'optimum', 'pyarrow', 'numpy'};"
        "sys.exit(' '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_worst_code_wins():
    assert worst(ExitCode.PASS, ExitCode.INCONCLUSIVE, ExitCode.GATE_FAILED) == 1
    assert worst(ExitCode.GATE_FAILED, ExitCode.STEP_FAILED) == 4
    assert worst() == 0


def test_policy_flags_reach_the_policy(monkeypatch, tmp_path):
    seen = []

    def keep(settings, *_, **__):
        seen.append(settings)
        raise UsageError("enough")

    monkeypatch.setattr("exporter.pipeline.run_export", keep)
    run(["export", "-t", "openvino", "--min-overlap", "0.9", "--max-drift", "0.02", "-q"])
    run(["export", "-t", "openvino", "--min-recall", "0.97", "-q"])
    assert seen[0].policy == PolicySettings(min_overlap_at_k=0.9, min_mean_cosine=0.98)
    assert seen[1].policy == PolicySettings(min_recall=0.97)


def test_search_and_recipe_flags_reach_the_settings(monkeypatch, tmp_path):
    seen = []

    def keep(settings, *_, **__):
        seen.append(settings)
        raise UsageError("enough")

    monkeypatch.setattr("exporter.pipeline.run_export", keep)
    flags = "--objective size --workload queries --search-budget 60 --calibrator mse "
    flags += "--smoothing on --embeddings int8 --layer-precision a.*=float32 "
    flags += "--layer-precision b.*=int8"
    assert run(["export", "-t", "openvino", "-q", *flags.split()]) == ExitCode.USAGE
    (settings,) = seen
    assert (settings.objective, settings.workload) == ("size", "queries")
    assert settings.search_budget_s == 60.0
    assert (settings.calibrator, settings.smoothing, settings.embeddings) == ("mse", "on", "int8")
    assert settings.layer_precision == (("a.*", "float32"), ("b.*", "int8"))


def test_an_unknown_objective_is_usage(capsys, tmp_path):
    code = run(["export", "-t", "openvino", "-o", str(tmp_path / "o"), "--objective", "sped"])
    assert code == ExitCode.USAGE
    assert "throughput" in capsys.readouterr().err


@pytest.mark.parametrize(("given", "found"), [(None, "4"), ("20", "20")])
def test_threads_of_blas_do_not_spin_unless_the_user_says_so(monkeypatch, given, found):
    monkeypatch.delenv("OPENBLAS_THREAD_TIMEOUT", raising=False)
    if given is not None:
        monkeypatch.setenv("OPENBLAS_THREAD_TIMEOUT", given)
    run(["--version"])
    assert os.environ["OPENBLAS_THREAD_TIMEOUT"] == found


def test_blas_is_set_up_before_it_is_loaded():
    """OpenBLAS reads its environment once, when numpy is imported."""
    code = "import sys, exporter.cli.app, exporter.steps.workers; print('numpy' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"
