"""The adapter on a device: options in effect, errors, several batches at once, inspection."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from contract.tiny_graph import INPUTS, PAD_ID, make_tokens

from targets.contract import Batching
from targets.errors import RunnerFailedError
from targets.onnxruntime.recipes import recipes_for
from targets.onnxruntime.session import open_session
from targets.onnxruntime.target import OnnxRuntimeTarget
from targets.registry import open_device

TARGET, DEVICE = OnnxRuntimeTarget(), open_device("local")
RECIPES = {one.name: one for one in recipes_for(DEVICE.hardware())}
TOKENS = make_tokens()


@dataclass(frozen=True)
class PlanInProcess:
    inputs: tuple[str, ...] = INPUTS
    output: str = "sentence_embedding"
    options: dict[str, str] = field(default_factory=dict)
    num_threads: int = 2


@pytest.fixture(scope="module")
def plan(request_for, tiny):
    artifact = TARGET.compile(request_for(RECIPES["int8-static"]))
    return TARGET.run_plan(artifact, tiny.artifact, PAD_ID, 2)


def with_options(plan, **options):
    return replace(plan, options={**plan.options, **options})


def test_options_are_read_back_and_none_is_left_open(plan):
    asked = {
        "graph_optimization_level": "basic",
        "intra_op_spinning": "0",
        "execution_mode": "parallel",
    }
    with DEVICE.start(with_options(plan, **asked), 2) as runner:
        info = runner.info()
    assert asked.items() <= dict(info.options).items()
    assert info.options["intra_op_num_threads"] == "2"
    assert info.options["providers"] == "CPUExecutionProvider"
    assert not info.warnings
    assert info.tool_versions["onnxruntime"]


def test_an_unknown_option_ends_in_an_error_by_name(plan):
    with pytest.raises(RunnerFailedError, match="unknown options") as caught:
        DEVICE.start(with_options(plan, fast="1"), 2)
    assert "fast" in str(caught.value)


def test_several_batches_at_once_are_the_same_embeddings(plan):
    batching = Batching(max_batch=2)
    with DEVICE.start(plan, 2) as runner:
        expected = runner.embed(TOKENS, batching)
    with DEVICE.start(with_options(plan, concurrent_runs="2"), 2) as runner:
        rows = runner.embed(TOKENS, batching)
        assert runner.info().options["intra_op_num_threads"] == "1"
    np.testing.assert_allclose(rows, expected, atol=1e-6)
    assert np.abs(np.roll(rows, 1, axis=0) - expected).max() > 0.01


def test_results_come_in_the_order_of_the_batches(plan):
    session = open_session(plan.model, PlanInProcess(options={"concurrent_runs": "2"}))
    batches = [
        {name: np.full((1, length), length, np.int64) for name in INPUTS[:2]}
        | {INPUTS[2]: np.zeros((1, length), np.int64)}
        for length in (3, 60, 5, 40, 7)
    ]
    together = session.run_many(batches)
    for rows, batch in zip(together, batches, strict=True):
        np.testing.assert_allclose(rows, session.run(batch), atol=1e-6)
    session.close()


def test_a_session_of_one_batch_at_a_time_has_no_run_many(plan):
    session = open_session(plan.model, PlanInProcess())
    assert not hasattr(session, "run_many")
    session.close()


def test_inspection_leaves_no_files(plan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    session = open_session(plan.model, PlanInProcess())
    feeds = {name: np.ones((2, 6), np.int64) for name in INPUTS}
    rows = session.inspect(feeds)
    session.close()
    assert {(op, dtype): count for op, dtype, count, _ in rows}[
        "MatMulIntegerToFloat", "int8"
    ] == 12
    assert sum(share for *_, share in rows) == pytest.approx(1.0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"inputs": INPUTS[:2]}, "the graph takes"),
        ({"output": "pooled"}, "no output 'pooled'"),
    ],
)
def test_tensors_that_are_not_there_are_named(plan, changes, said):
    with pytest.raises(ValueError, match=said):
        open_session(plan.model, PlanInProcess(**changes))


def test_a_damaged_file_is_one_line_and_nothing_on_the_terminal(tmp_path: Path, capfd):
    broken = tmp_path / "model.onnx"
    broken.write_bytes(b"no graph at all")
    with pytest.raises(RuntimeError) as caught:
        open_session(broken, PlanInProcess())
    assert "model.onnx" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
