"""The command: which bundle, which file of results, which exit code."""

from __future__ import annotations

import pytest
from bench_comparisons import comparison, figures

from benchmarks import peers
from benchmarks.figures import Comparison
from exporter.deliver.codec import load_json

WON_MS, LOST_MS = 25.0, 5.0


@pytest.fixture
def results(tmp_path, monkeypatch):
    """An empty folder of results, and nothing of the user's in the working directory."""
    monkeypatch.setattr(peers, "RESULTS", tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "results"


def measured(baseline_ms: float, monkeypatch) -> None:
    """Put known figures in the place of minutes of timing."""
    monkeypatch.setattr(peers, "_compare", lambda given: comparison([figures(baseline_ms)]))


@pytest.mark.parametrize(
    ("arguments", "bundle"),
    [
        ([], "out"),
        (["--target", "openvino"], "out"),
        (["--target", "onnxruntime"], "out-onnxruntime"),
        (["--target", "onnxruntime", "--bundle", "mine"], "mine"),
    ],
)
def test_the_bundle_is_the_target_s_unless_named(results, capsys, arguments, bundle):
    (results.parent / bundle).mkdir()  # empty: opening it is an error that names it
    assert peers.main(["--quiet", *arguments]) == 4
    assert f"{bundle}/manifest.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "file"),
    [([], "peers.json"), (["--target", "onnxruntime"], "peers-onnxruntime.json")],
)
def test_results_of_targets_do_not_meet(results, monkeypatch, arguments, file):
    measured(WON_MS, monkeypatch)
    assert peers.main(arguments) == 0
    assert [path.name for path in results.iterdir()] == [file]
    assert not load_json(Comparison, (results / file).read_bytes()).beaten


def test_a_defeat_is_exit_code_1_and_is_saved_too(results, monkeypatch, capsys):
    measured(LOST_MS, monkeypatch)
    assert peers.main(["--target", "onnxruntime", "-o", "here/found.json"]) == 1
    assert load_json(Comparison, (results.parent / "here/found.json").read_bytes()).beaten
    assert not results.exists()
    shown = capsys.readouterr().out
    assert "BEATEN by st-onnx-fp32" in shown
    assert "saved here/found.json" in shown


@pytest.mark.parametrize("flag", ["--rounds", "--cold-repeats"])
def test_what_cannot_have_an_interval_is_refused(results, capsys, flag):
    assert peers.main(["--target", "onnxruntime", flag, "1"]) == 2
    assert f"{flag} 1 is too few" in capsys.readouterr().err


def test_an_unknown_target_is_refused_with_the_known_ones(capsys):
    with pytest.raises(SystemExit) as caught:
        peers.main(["--target", "onnx"])
    assert caught.value.code == 2
    assert "'openvino', 'onnxruntime'" in capsys.readouterr().err
