"""The OpenVINO adapter behind the real runner, on tiny encoders built here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from targets.contract import ALONE, Batching, RunPlan, TokenSequences, Workload
from targets.devices.client import _plan_to_json
from targets.devices.local import LocalDevice
from targets.errors import RunnerFailedError
from targets.openvino.session import open_session
from targets.runner.batches import full_batch
from targets.runner.plan import SessionPlan

pytestmark = pytest.mark.openvino

ONNX_NAMES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}
ROOT = Path(__file__).parents[3]


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def session_plan(plan: RunPlan, num_threads: int) -> SessionPlan:
    """The plan as the runner reads it from what it is sent."""
    message = _plan_to_json(plan, str(plan.adapter), str(plan.model))
    return SessionPlan.from_json(message, num_threads=num_threads)


def executed(runner, texts) -> dict[str, set[str]]:
    rows: dict[str, set[str]] = {}
    for row in runner.inspect(texts):
        rows.setdefault(row.op_type, set()).add(row.dtype)
    return rows


def test_float32_agrees_with_numpy(start, texts, tiny):
    rows = start().embed(texts)
    assert rows.dtype == np.float32
    assert cosine(rows, tiny.embed(texts)).min() > 0.999999


def test_wrong_tokens_are_noticed(start, texts, tiny):
    """The check above would see rows that belong to other texts."""
    backwards = texts.select(np.arange(len(texts))[::-1])
    assert cosine(start().embed(backwards), tiny.embed(texts)).min() < 0.9


@pytest.mark.parametrize(
    "batching",
    [ALONE, Batching(sort=False, max_batch=5), Batching(extra_padding=16)],
    ids=["alone", "given-order", "padded"],
)
def test_embeddings_do_not_depend_on_company(start, texts, batching):
    runner = start()
    assert cosine(runner.embed(texts, batching), runner.embed(texts)).min() > 0.999999


def test_results_are_copies_of_the_runtimes_memory(openvino, make_plan):
    """Asked in this process: the runner copies once more and would hide it."""
    plan = session_plan(make_plan(), num_threads=1)
    session = open_session(plan.model, plan)
    first = session.run(full_batch(1, 8, plan, None))
    kept = first.copy()
    second = session.run(full_batch(1, 16, plan, None))
    assert not np.array_equal(second, kept)
    np.testing.assert_array_equal(first, kept)
    assert first.flags.owndata
    session.close()


@pytest.mark.parametrize("hint", ["f32", "bf16"])
def test_the_precision_that_is_in_effect_is_the_one_that_runs(start, texts, tiny, hint):
    runner = start(options={"INFERENCE_PRECISION_HINT": hint})
    info = runner.info()
    effective = info.options["INFERENCE_PRECISION_HINT"]
    assert executed(runner, texts)["FullyConnected"] == {ONNX_NAMES[effective]}
    assert bool(info.warnings) == (effective != hint)
    assert cosine(runner.embed(texts), tiny.embed(texts)).min() > 0.999


def test_float32_runs_no_other_float_and_no_int8(start, texts):
    found = set().union(*executed(start(), texts).values())
    assert "float32" in found
    assert not found & {"bfloat16", "float16", "int8"}


def test_int8_is_proven_by_the_kernel(start, texts, tiny):
    runner = start(model=tiny.int8_ir)
    assert executed(runner, texts)["FullyConnected"] == {"int8"}
    assert 0.9 < cosine(runner.embed(texts), tiny.embed(texts)).min() < 0.99999


def test_compressed_weights_are_not_taken_for_int8_arithmetic(start, texts, tiny):
    """OpenVINO's runtimePrecision says i8 for them; the kernel computes in float."""
    assert executed(start(model=tiny.compressed_ir), texts)["FullyConnected"] == {"float32"}


def test_inspection_shares_out_the_whole_time(start, texts):
    rows = start().inspect(texts)
    shares = [row.time_share for row in rows]
    assert sum(shares) == pytest.approx(1.0)
    assert shares == sorted(shares, reverse=True)
    by_type = {row.op_type: row for row in rows}
    assert by_type["FullyConnected"].count == 1
    assert by_type["FullyConnected"].time_share > 0
    assert {"Const", "Input", "Output"} <= by_type.keys()
    assert by_type["Const"].time_share == 0.0


def test_options_are_explicit_and_read_back(start):
    options = start().info().options
    assert options["INFERENCE_PRECISION_HINT"] == "f32"
    assert options["PERFORMANCE_HINT"] == "LATENCY"
    assert options["NUM_STREAMS"] == "1"
    assert options["INFERENCE_NUM_THREADS"] == "1"
    assert "ONEDNN_MAX_CPU_ISA" not in options


def test_a_capped_instruction_set_is_in_effect_and_said(start, texts):
    device = LocalDevice("local:avx2", environment={"ONEDNN_MAX_CPU_ISA": "AVX2"})
    runner = start(device)
    assert runner.info().options["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    assert runner.embed(texts).shape == (24, 64)


def test_versions_name_the_runtime(start, openvino):
    assert start().info().tool_versions["openvino"] == openvino.get_version()


@pytest.mark.parametrize(
    "workload",
    [
        Workload(name="s", kind="shape", batch_size=4, sequence_length=16),
        Workload(name="s1", kind="shape", batch_size=1, sequence_length=64),
    ],
    ids=["4x16", "1x64"],
)
def test_shapes_are_timed(start, workload):
    samples_ms = start().time(workload, 5, warmup=2)
    assert samples_ms.shape == (5,)
    assert (samples_ms > 0).all()


def test_a_mix_is_timed_alone_and_in_batches(start, texts):
    runner = start()
    alone = runner.time(Workload(name="mix", kind="single", tokens=texts), 2)
    batched = runner.time(Workload(name="mix", kind="batched", tokens=texts), 2)
    assert (alone.shape, batched.shape) == ((48,), (2,))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_idle_runner_takes_no_cpu_time(start, texts):
    idle, busy = start(), start()
    idle.embed(texts)
    before, busy_before = cpu_ticks(idle.pid), cpu_ticks(busy.pid)
    workload = Workload(name="s", kind="shape", batch_size=64, sequence_length=64)
    while cpu_ticks(busy.pid) - busy_before < 50:
        busy.time(workload, 20)
    assert cpu_ticks(idle.pid) - before <= 1  # of 1/100 s, while the other took half a second


def cpu_ticks(pid: int) -> int:
    """User and system time of a process, fields 14 and 15 of proc(5) stat."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_no_telemetry_leaves_the_runner(start, tmp_path):
    """OpenVINO's telemetry keeps its client id in the home folder."""
    start(LocalDevice(environment={"HOME": str(tmp_path)}))
    assert list(tmp_path.iterdir()) == []


def test_openvino_uses_its_own_silent_stub():
    code = (
        "from targets.openvino.session import _silence_telemetry; _silence_telemetry();"
        "from openvino.tools.ovc import telemetry_utils; print(telemetry_utils.tm.__name__)"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert out.stdout.strip().endswith(b"telemetry_stub")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"options": {}}, "the plan sets no INFERENCE_PRECISION_HINT"),
        ({"options": {"INFERENCE_PRECISION_HINT": "int8"}}, "INFERENCE_PRECISION_HINT"),
        ({"options": {"INFERENCE_PRECISION_HINT": "f32", "NO_SUCH": "1"}}, "NO_SUCH"),
        ({"output": "pooler_output"}, "no output 'pooler_output'"),
        ({"inputs": ("input_ids", "attention_mask")}, "the graph takes"),
        ({"embedding_dim": 63}, r"expected float32 \(1, 63\)"),
    ],
    ids=["no-hint", "bad-hint", "bad-option", "bad-output", "missing-input", "bad-dim"],
)
def test_a_plan_that_does_not_fit_is_refused_by_name(start, changes, said):
    with pytest.raises(RunnerFailedError, match=said):
        start(**changes)


def test_a_damaged_model_is_refused_by_name(start, tiny, tmp_path):
    broken = tmp_path / "broken.xml"
    broken.write_bytes(tiny.float_ir.read_bytes()[:200])
    with pytest.raises(RunnerFailedError, match=r"while loading broken\.xml"):
        start(model=broken)


def test_missing_weights_are_refused(start, tiny, tmp_path):
    alone = tmp_path / "alone.xml"
    alone.write_bytes(tiny.float_ir.read_bytes())
    with pytest.raises(RunnerFailedError, match=r"while loading alone\.xml"):
        start(model=alone)


def test_a_model_reached_through_links_finds_its_weights(start, texts, tiny, tmp_path):
    """Caches of model hubs hold links to files that are named by their hash."""
    for suffix, blob in ((".xml", "6f1a"), (".bin", "c03e")):
        (tmp_path / blob).write_bytes(tiny.float_ir.with_suffix(suffix).read_bytes())
        (tmp_path / f"linked{suffix}").symlink_to(tmp_path / blob)
    rows = start(model=tmp_path / "linked.xml").embed(texts)
    assert cosine(rows, tiny.embed(texts)).min() > 0.999999


def test_one_token_and_the_longest_text_both_run(start, tiny):
    tokens = TokenSequences.from_lists([[7], list(range(5, 69))], 0)
    assert cosine(start().embed(tokens), tiny.embed(tokens)).min() > 0.999999


# ------------------------------------------------------------------------------- streams

STREAMS = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": "2"}


def test_streams_give_every_text_its_own_row(make_plan, texts, tiny):
    """Batches that finish out of order must not change places."""
    many = texts.select(np.arange(len(texts)).repeat(8))
    with LocalDevice().start(make_plan(options=STREAMS, max_batch_tokens=64), 2) as runner:
        rows = runner.embed(many)
        assert runner.info().options["NUM_STREAMS"] == "2"
    assert cosine(rows, tiny.embed(texts).repeat(8, axis=0)).min() > 0.999999


def test_only_a_session_with_streams_takes_several_batches(openvino, make_plan):
    for options, several in (({"INFERENCE_PRECISION_HINT": "f32"}, False), (STREAMS, True)):
        plan = session_plan(make_plan(options=options), num_threads=2)
        session = open_session(plan.model, plan)
        assert hasattr(session, "run_many") is several
        session.close()


def test_results_of_streams_are_in_the_order_of_the_batches(openvino, make_plan):
    plan = session_plan(make_plan(options=STREAMS), num_threads=2)
    session = open_session(plan.model, plan)
    batches = [full_batch(1 + number % 3, 4 + 7 * (number % 5), plan, None) for number in range(15)]
    together = session.run_many(batches)
    assert len(together) == 15
    for rows, inputs in zip(together, batches, strict=True):
        assert rows.flags.owndata
        np.testing.assert_allclose(rows, session.run(inputs), atol=1e-6)
    assert session.run_many([]) == []
    session.close()


def test_an_error_in_a_stream_is_not_lost(openvino, make_plan):
    plan = session_plan(make_plan(options=STREAMS), num_threads=2)
    session = open_session(plan.model, plan)
    bad = full_batch(1, 8, plan, None)
    bad["attention_mask"] = bad["attention_mask"][:, :5]
    with pytest.raises(RuntimeError):
        session.run_many([bad])
    good = full_batch(2, 8, plan, None)  # and the session goes on
    np.testing.assert_allclose(session.run_many([good])[0], session.run(good), atol=1e-6)
    session.close()


def test_streams_are_timed_as_one_sample_a_pass(start, texts):
    runner = start(options=STREAMS, max_batch_tokens=64)
    samples_ms = runner.time(Workload(name="mix", kind="batched", tokens=texts), 3)
    assert samples_ms.shape == (3,)
    assert (samples_ms > 0).all()
