"""The GPU session through the runner's own protocol, on the strict stand-in and a fake driver.

No GPU computes anything here (`tensorrt_api.fake_engine`); what is proven is that every call exists
in TensorRT 10.16 and 11.4, that results are waited for, that shapes find their profile, that graphs
replay, and that what fails is an error by name. `test_an_engine_runs_on_a_real_gpu` does the real
thing where there is one.
"""

from __future__ import annotations

import importlib
import io
import json
import struct
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tensorrt_api import fake_cuda
from tensorrt_api.fake_engine import DIM, INPUTS, LAYERS, FakeEngine, embed
from tensorrt_api.stand_in import VERSIONS

import targets.tensorrt.session
from targets.artifacts import artifact_file
from targets.contract import (
    CompiledArtifact,
    OnnxArtifact,
    Recipe,
    RunPlan,
    TensorSpec,
    TokenSequences,
)
from targets.runner.channel import Channel
from targets.runner.server import Server
from targets.tensorrt import engine_layers
from targets.tensorrt.build_plan import BuildPlan, Profile
from targets.tensorrt.session import open_session
from targets.tensorrt.target import TensorRtTarget

ADAPTER = Path(targets.tensorrt.session.__file__)
PLAN = {
    "adapter": str(ADAPTER),
    "inputs": list(INPUTS),
    "output": "sentence_embedding",
    "pad_token_id": 0,
    "embedding_dim": DIM,
    "max_seq_length": 16,
    "options": {},
    "length_multiple": 1,
    "max_batch_tokens": 64,
}
TEXTS = TokenSequences.from_lists([[5, 6, 7], [8], [9] * 16, [10, 11], [12] * 5], 0)


class Bench:
    """A fake GPU with a stand-in for TensorRT, and an engine file."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self._monkeypatch = monkeypatch
        self.engine_file = folder / "model.plan"
        self.engine_file.write_bytes(b"ftrt")
        self.tokens = folder / "tokens.npz"
        TEXTS.save(self.tokens)
        self.output = folder / "embeddings.npy"
        self.gpu = fake_cuda.install(monkeypatch)
        self.use()

    def use(self, major: int = 10, *, half: bool = False, poison: int = -1, **changes: Any):
        self.engine = FakeEngine(self.gpu, half=half, poison=poison)
        self.module = self.engine.module(major, **changes)
        self._monkeypatch.setitem(sys.modules, "tensorrt", self.module)
        return self

    def open(self, **options: str) -> Any:
        plan = SimpleNamespace(inputs=INPUTS, output="sentence_embedding", options=options)
        return open_session(self.engine_file, plan)

    def ask(self, *commands: dict[str, Any], **options: str) -> list[dict[str, Any]]:
        """Load by the runner's protocol, send commands and `exit`; return what was answered."""
        plan = PLAN | {"model": str(self.engine_file), "options": options}
        lines = [{"command": "load", "plan": plan}, *commands, {"command": "exit"}]
        asked = io.BytesIO(b"".join(json.dumps(one).encode() + b"\n" for one in lines))
        answers = io.BytesIO()
        channel = Channel(asked, answers, lambda: pytest.fail("the caller was not lost"))
        Server(channel, 1, {}, ()).serve()
        told = [json.loads(line) for line in answers.getvalue().splitlines()]
        return [one for one in told if "progress" not in one]

    def embed_command(self) -> dict[str, Any]:
        return {"command": "embed", "tokens": str(self.tokens), "output": str(self.output)}


@pytest.fixture
def bench(monkeypatch, tmp_path) -> Bench:
    return Bench(monkeypatch, tmp_path)


def batch(rows: int, length: int, first: int = 5) -> dict[str, np.ndarray]:
    ids = (first + np.arange(rows * length).reshape(rows, length)) % 40
    mask = np.ones_like(ids)
    mask[:, length // 2 + 1 :] = 0
    return {"input_ids": ids, "attention_mask": mask}


def expected(inputs: dict[str, np.ndarray]) -> np.ndarray:
    return embed(inputs["input_ids"], inputs["attention_mask"])


# --------------------------------------------------------------- the whole path, both versions


@pytest.mark.parametrize("major", VERSIONS)
@pytest.mark.parametrize("graph", ["0", "1"])
def test_the_runner_embeds_times_and_inspects(bench, major, graph):
    bench.use(major)
    timed = {
        "command": "time",
        "kind": "shape",
        "batch_size": 4,
        "sequence_length": 8,
        "passes": 3,
        "warmup": 1,
        "output": str(bench.output.with_name("times.npy")),
    }
    inspected = {"command": "inspect", "tokens": str(bench.tokens)}
    loaded, embedded, times, layers, _ = bench.ask(
        bench.embed_command(), timed, inspected, {"command": "info"}, cuda_graph=graph
    )
    assert "error" not in loaded
    assert embedded["result"]["num_texts"] == len(TEXTS)
    rows = np.load(bench.output)
    for row, ids in zip(rows, TEXTS, strict=True):
        wanted = embed(np.array([ids]), np.ones((1, len(ids)), np.int64))[0]
        np.testing.assert_allclose(row, wanted, rtol=1e-6)
    assert times["result"]["num_samples"] == 3
    assert sorted(layers["result"]["rows"]) == [
        ["fused attention", "float16", 1, None],
        ["gemm", "int8", 1, None],
        ["kgen", "int64", 1, None],
    ]
    assert bench.gpu.launches > 0 if graph == "1" else bench.gpu.launches == 0
    assert bench.gpu.device == bench.gpu.pinned == {}  # `exit` frees everything


def test_what_is_in_effect_is_told(bench):
    session = bench.open(cuda_graph="1")
    session.run(batch(2, 3))
    told = session.options()
    assert told["runtime"] == "tensorrt"
    assert told["cuda_graph"] == "1"
    assert told["profiles"] == "1x1 to 4x8; 1x1 to 8x16"
    # the fake's clock counts pieces of work: two copies there, one run, one copy back
    assert told["median_host_to_device_ms"] == "3.0000"
    assert told["median_compute_ms"] == "2.0000"
    assert told["median_device_to_host_ms"] == "2.0000"
    assert session.versions().keys() == {"tensorrt", "cuda-driver", "cuda-bindings"}


# ------------------------------------------------------------------------------------ running


@pytest.mark.parametrize("api", ["cuda-bindings", "pycuda"])
def test_batches_of_any_shape_in_any_order(bench, api):
    session = bench.open(cuda_api=api)
    for shape in [(1, 1), (4, 8), (8, 16), (2, 3), (8, 16), (1, 16), (4, 8)]:
        inputs = batch(*shape)
        np.testing.assert_allclose(session.run(inputs), expected(inputs), rtol=1e-6)


def test_graphs_replay_with_new_values_and_one_context_each(bench):
    session = bench.open(cuda_graph="1")
    for first in (5, 17, 30):
        for shape in [(4, 8), (2, 3), (4, 8)]:
            inputs = batch(*shape, first)
            np.testing.assert_allclose(session.run(inputs), expected(inputs), rtol=1e-6)
    made = bench.module.called("ICudaEngine.create_execution_context")
    assert len(made) == 2 + 2  # one for each profile, one for each captured shape
    assert bench.gpu.launches == 9


def test_shapes_beyond_the_limit_of_graphs_run_without(bench, monkeypatch):
    monkeypatch.setattr(targets.tensorrt.session, "_MAX_GRAPHS", 1)
    session = bench.open(cuda_graph="1")
    for shape in [(1, 2), (1, 3), (1, 4)]:
        inputs = batch(*shape)
        np.testing.assert_allclose(session.run(inputs), expected(inputs), rtol=1e-6)
    assert bench.gpu.launches == 1


def test_a_shape_takes_the_first_profile_that_it_fits(bench):
    session = bench.open()
    bench.module.calls.clear()
    session.run(batch(4, 8))
    session.run(batch(4, 9))
    contexts = bench.module.called("IExecutionContext.set_input_shape")
    assert [one["shape"] for one in contexts] == [(4, 8)] * 2 + [(4, 9)] * 2
    assert bench.module.called("ICudaEngine.create_execution_context") == []


def test_a_result_is_not_overwritten_by_the_next(bench):
    session = bench.open()
    first_inputs, second_inputs = batch(2, 3), batch(2, 3, first=20)
    first = session.run(first_inputs)
    session.run(second_inputs)
    np.testing.assert_allclose(first, expected(first_inputs), rtol=1e-6)


def test_a_half_embedding_becomes_float32(bench):
    rows = bench.use(half=True).open().run(batch(2, 3))
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, expected(batch(2, 3)), atol=2e-3)


def test_a_session_that_does_not_wait_gives_old_bytes(bench, monkeypatch):
    """The negative twin of everything above: the fake notices what a GPU would punish."""
    session = bench.open()
    monkeypatch.setattr(session._cuda, "synchronize", lambda stream: None)
    monkeypatch.setattr(session._times, "remember", lambda: None)
    assert not np.allclose(session.run(batch(2, 3)), expected(batch(2, 3)))


def test_the_first_run_of_a_graph_needs_ids_that_are_there(bench, monkeypatch):
    session = bench.open(cuda_graph="1")
    monkeypatch.setattr(session, "_send", lambda shape: None)
    with pytest.raises(AssertionError, match="illegal memory access"):
        session.run(batch(2, 3))


# ----------------------------------------------------------------------- what fails, by name


def test_embeddings_that_are_not_finite_fail_by_name(bench):
    _, answer = bench.use(poison=8).ask(bench.embed_command())
    assert answer["error"]["kind"] == "non_finite"
    assert "1 of 5 embeddings are not finite (texts 1)" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Runtime__deserialize_cuda_engine": None}, "does not take the engine"),
        ({"ICudaEngine__create_execution_context": None}, "makes no execution context"),
        ({"IExecutionContext__set_optimization_profile_async": False}, "optimization profile 0"),
        ({"IExecutionContext__set_input_shape": False}, "does not take input_ids of shape"),
        ({"IExecutionContext__infer_shapes": ["attention_mask"]}, "lacks shapes"),
        ({"IExecutionContext__set_tensor_address": False}, "does not take the memory"),
        ({"IExecutionContext__execute_async_v3": False}, "does not run the batch"),
    ],
)
@pytest.mark.parametrize("major", VERSIONS)
def test_every_no_of_tensorrt_is_an_error(bench, major, changes, message):
    (answer,) = bench.use(major, **changes).ask()
    assert answer["error"]["kind"] == "adapter"
    assert message in answer["error"]["message"]


def test_what_tensorrt_logs_is_in_the_error(bench):
    def refuse(runtime: Any, **_: Any) -> None:
        logger = bench.module.called("Runtime.__init__")[0]["logger"]
        logger.log(bench.module.ILogger.Severity.WARNING, "never mind")
        logger.log(bench.module.ILogger.Severity.ERROR, "serialization\nversion 239, current 243")

    bench.use(Runtime__deserialize_cuda_engine=refuse)
    with pytest.raises(RuntimeError, match=r"\(serialization version 239, current 243\)"):
        bench.open()


def test_no_gpu_is_said_by_cuda_s_own_name(monkeypatch, bench):
    fake_cuda.install(monkeypatch, cudaSetDevice="cudaErrorNoDevice")
    (answer,) = bench.ask()
    assert "cudaErrorNoDevice" in answer["error"]["message"]


def test_memory_that_runs_out_is_an_error_and_what_was_taken_is_freed(monkeypatch, bench):
    gpu = fake_cuda.install(monkeypatch, cudaMallocHost="cudaErrorMemoryAllocation")
    bench.gpu = gpu
    (answer,) = bench.use().ask()
    assert "cudaMallocHost: cudaErrorMemoryAllocation" in answer["error"]["message"]
    assert gpu.device == {}


def test_a_missing_package_is_named(bench, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    (answer,) = bench.ask()
    assert answer["error"]["kind"] == "import"
    assert answer["error"]["subject"] == "tensorrt"


def test_a_shape_that_fits_no_profile_names_them(bench):
    with pytest.raises(ValueError, match=r"\(9, 4\) fits no optimization profile: \(1, 1\) to"):
        bench.open().run(batch(9, 4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"streams": "2"}, "unknown options"),
        ({"cuda_graph": "yes"}, "it is one of 0, 1"),
        ({"cuda_api": "cupy"}, "cuda-bindings, pycuda"),
        ({"cuda_api": "pycuda", "cuda_graph": "1"}, "pycuda has no CUDA graphs"),
    ],
)
def test_options_that_cannot_be_are_refused(bench, options, message):
    with pytest.raises(ValueError, match=message):
        bench.open(**options)


@pytest.mark.parametrize("major", VERSIONS)
def test_code_for_the_cpu_runs_only_where_the_engine_must_have_it(bench, major):
    bench.use(major).open()
    assert bench.module.called("Runtime.engine_host_code_allowed") == []
    bench.open(host_code="1")
    assert bench.module.called("Runtime.engine_host_code_allowed") == [{"value": True}]


def test_an_engine_of_other_tensors_is_refused(bench):
    plan = SimpleNamespace(inputs=("input_ids",), output="sentence_embedding", options={})
    with pytest.raises(ValueError, match="the plan feeds"):
        open_session(bench.engine_file, plan)
    plan = SimpleNamespace(inputs=INPUTS, output="pooled", options={})
    with pytest.raises(ValueError, match="no output 'pooled'"):
        open_session(bench.engine_file, plan)


def test_a_type_that_nothing_has_is_refused(bench):
    bench.use(ICudaEngine__get_tensor_dtype=lambda _, name: bench.module.DataType.FP8)
    with pytest.raises(ValueError, match="is FP8"):
        bench.open()


def test_a_call_that_11_does_not_have_would_be_noticed(bench, monkeypatch):
    """The negative twin of the whole path: 10's older memory call is gone from 11."""

    def older(session: Any, profile: int) -> Any:
        return session._engine.create_execution_context_without_device_memory()

    monkeypatch.setattr(targets.tensorrt.session.TensorRtSession, "_new_context", older)
    with pytest.raises(AttributeError, match="without_device_memory"):
        bench.use(11).open()


# ----------------------------------------------------------------------- layers and the GPU


def test_layers_are_counted_by_kind_and_type():
    layers = [
        {"Name": "a", "LayerType": "Reformat", "Inputs": [{"Format/Datatype": "Row major Half"}]},
        {"Name": "b", "LayerType": "gemm", "Inputs": [{"Format/Datatype": "BFloat16"}]},
        {"Name": "c", "LayerType": "gemm", "Inputs": [{"Format/Datatype": "Int8"}]},
        {
            "Name": "d",
            "LayerType": "CaskGemmMatrixMultiply",
            "Inputs": [{"Format/Datatype": "Row major linear INT8 format"}],
        },
        {"Name": "encoder/attention/output", "LayerType": "kgen", "Inputs": []},
    ]
    assert engine_layers.rows_of(json.dumps({"Layers": layers})) == [
        ("gemm", "int8", 2, None),
        ("gemm", "bfloat16", 1, None),
        ("kgen", "unknown", 1, None),
        ("reformat", "float16", 1, None),
    ]


@pytest.mark.parametrize("text", ["", json.dumps({"Layers": ["a", "b"]}), '{"Layers": []}'])
def test_bare_names_are_no_description(text):
    with pytest.raises(ValueError, match="detailed verbosity"):
        engine_layers.rows_of(text)


def test_the_fake_s_layers_are_json():
    assert len(json.loads(LAYERS)["Layers"]) == 3


# ---------------------------------------------------------------- from the target to the runner


def finished(folder: Path, **changes: Any) -> CompiledArtifact:
    """An engine of TensorRT 10.16 as `exporter build` leaves it."""
    head = struct.pack("<4sI8xQ4B4xI", b"ftrt", 0, 0, 10, 16, 1, 11, 0).ljust(64, b"\0")
    (folder / "model.plan").write_bytes(head)
    profile = Profile(smallest=(1, 1), typical=(2, 4), largest=(8, 16))
    plan = BuildPlan(graph="m.onnx", inputs=INPUTS, profiles=(profile,), **changes)
    (folder / "build_plan.json").write_text(plan.to_json())
    files = tuple(artifact_file(folder / name) for name in ("model.plan", "build_plan.json"))
    return CompiledArtifact(
        directory=folder,
        files=files,
        target="tensorrt",
        recipe=Recipe(name="f", precision="float16", float_precision="float16", why="a test"),
        built_from="0" * 64,
        device_requirement=(),
        tool_versions={},
        compile_s=0.0,
    )


def run_plan_of(folder: Path, **changes: Any) -> RunPlan:
    shape = ("batch_size", "sequence_length")
    graph = OnnxArtifact(
        path=folder / "m.onnx",
        sha256="0" * 64,
        opset=20,
        inputs=tuple(TensorSpec(name=name, dtype="int64", shape=shape) for name in INPUTS),
        outputs=(),
        model_id="m",
        revision="r",
        embedding_dim=DIM,
        pooling="mean",
        normalized=True,
        max_seq_length=16,
    )
    return TensorRtTarget().run_plan(finished(folder, **changes), graph, 0, 1)


@pytest.mark.parametrize("changes", [{}, {"cuda_api": "pycuda"}, {"cuda_graph": True}], ids=str)
def test_the_target_s_run_plan_is_what_the_session_takes(bench, changes):
    plan = run_plan_of(bench.engine_file.parent, **changes)
    assert plan.adapter == ADAPTER
    loaded, _, told, *_ = bench.ask(bench.embed_command(), {"command": "info"}, **plan.options)
    assert loaded["result"]["warnings"] == []
    assert told["result"]["options"].items() >= plan.options.items()
    assert (bench.gpu.launches > 0) == ("cuda_graph" in changes)


def test_graphs_are_offered_as_another_way_of_running(bench):
    plan = run_plan_of(bench.engine_file.parent)
    (variant,) = TensorRtTarget().variants(plan, 1)
    assert variant.plan.options == {**plan.options, "cuda_graph": "1"}
    assert bench.open(**variant.plan.options).options()["cuda_graph"] == "1"
    assert TensorRtTarget().variants(variant.plan, 1) == ()


def test_pycuda_is_offered_no_graphs(bench):
    plan = run_plan_of(bench.engine_file.parent, cuda_api="pycuda")
    assert TensorRtTarget().variants(plan, 1) == ()


def test_an_engine_that_serves_later_versions_may_bring_code_for_the_cpu(bench):
    plan = run_plan_of(bench.engine_file.parent, version_compatible=True)
    assert plan.options["host_code"] == "1"
    assert run_plan_of(bench.engine_file.parent).options["host_code"] == "0"


@pytest.mark.gpu
@pytest.mark.tensorrt
@pytest.mark.parametrize("graph", ["0", "1"])
def test_an_engine_runs_on_a_real_gpu(graph, tmp_path):
    """Build the tiny encoder by TensorRT's own builder and compare with the same model in numpy."""
    try:
        tensorrt = importlib.import_module("tensorrt")
        importlib.import_module("targets.tensorrt.cuda").open_cuda("cuda-bindings").close()
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"needs TensorRT, cuda-bindings and an NVIDIA GPU: {error}")
    from contract.tiny_graph import INPUTS as NAMES
    from contract.tiny_graph import make_tokens, write_tiny_graph

    from targets.tensorrt.engine import build_engine

    tiny, tokens = write_tiny_graph(tmp_path), make_tokens(6)
    profile = Profile(smallest=(1, 1), typical=(2, 16), largest=(4, 64))
    plan = BuildPlan(graph="model.onnx", inputs=NAMES, profiles=(profile,))
    path = tmp_path / "model.plan"
    path.write_bytes(build_engine(tensorrt, tiny.artifact.path, plan).data)
    asked = SimpleNamespace(
        inputs=NAMES, output="sentence_embedding", options={"cuda_graph": graph}
    )
    session = open_session(path, asked)
    try:
        for ids, wanted in zip(tokens, tiny.embed(tokens), strict=True):
            row = np.asarray(ids, np.int64)[None]
            inputs = dict(zip(NAMES, (row, np.ones_like(row), np.zeros_like(row)), strict=True))
            np.testing.assert_allclose(session.run(inputs)[0], wanted, atol=2e-3)
        assert session.inspect(inputs)
    finally:
        session.close()
