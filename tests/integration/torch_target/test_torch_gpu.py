"""What is made for a GPU: as far as that goes without one, and on one (marked `gpu`)."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from contract.tiny_graph import make_tokens

from exporter.judge import judge_precision
from targets.contract import ExecutedPrecision, Hardware, Recipe
from targets.errors import CompileError, DeviceError
from targets.hardware.gpu_hardware import hardware_of_gpus
from targets.hardware.gpus import gpu_profile
from targets.pytorch.loading import has_compiler
from targets.pytorch.recipes import recipes_for
from targets.pytorch.target import TorchTarget
from targets.registry import open_device

H100 = hardware_of_gpus([gpu_profile("H100")], "NVIDIA H100")
TARGET = TorchTarget()
NAMES = tuple(one.name for one in recipes_for(H100))
MIN_COSINE = {"float8-dynamic": 0.99, "int4-weights": 0.95, "nf4-weights": 0.95}
"""Of layers this small; 0.995 for the others."""


def recipe_of(name: str, hardware: Hardware = H100) -> Recipe:
    return next(one for one in recipes_for(hardware) if one.name == name)


def build(bench, name: str, hardware: Hardware = H100):
    request = replace(bench.request(recipe_of(name, hardware)), hardware=hardware)
    return TARGET.compile(request)


def cosine(rows: np.ndarray, expected: np.ndarray) -> float:
    norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(expected, axis=1)
    return float(((rows * expected).sum(axis=1) / norms).min())


# ------------------------------------------------------------------------ without a GPU


def test_an_artifact_for_a_gpu_runs_there_and_nowhere_else(bench):
    artifact = build(bench, "int8-dynamic")
    plan = TARGET.run_plan(artifact, bench.graph.artifact, 0, 1)
    assert plan.options["place"] == "cuda"
    stored = json.loads((artifact.directory / "runner.json").read_text())
    assert (stored["place"], stored["min_tokens"]) == ("cuda", 24)
    here = TARGET.run_plan(bench.build(recipe_of("float32")), bench.graph.artifact, 0, 1)
    assert here.options["place"] == "cpu"
    assert plan.max_batch_tokens > here.max_batch_tokens


def test_widening_a_short_batch_does_not_move_its_embedding(bench):
    """The artifact for a GPU computes on a CPU as well, which is enough to see that."""
    artifact = build(bench, "int8-dynamic")
    session = bench.open(artifact)
    ids = make_tokens()[0][:7]
    rows = session.run(bench.inputs(ids))
    assert session._min_tokens == 24
    session._min_tokens = 0
    assert cosine(rows, session.run(bench.inputs(ids))) > 0.9999


def test_float8_is_refused_by_name_where_no_gpu_multiplies_it(bench):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(CompileError, match="float8-dynamic") as refused:
        build(bench, "float8-dynamic")
    assert "8.9" in refused.value.why


def test_graphs_are_refused_on_a_cpu(bench):
    with pytest.raises(ValueError, match="on a GPU only"):
        bench.open(bench.build(recipe_of("float32")), cuda_graphs="on")


def test_a_damaged_runner_file_is_said(bench):
    from targets.errors import StorageError

    artifact = bench.build(recipe_of("float32"))
    (artifact.directory / "runner.json").write_text("[")
    with pytest.raises(StorageError, match=r"runner\.json"):
        TARGET.run_plan(artifact, bench.graph.artifact, 0, 1)


# ---------------------------------------------------------------------------- on a GPU


@pytest.fixture(scope="module")
def gpu() -> Hardware:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU here")
    try:
        return open_device("local:cuda").hardware()
    except DeviceError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def artifacts(bench, gpu):
    built = {}

    def make(name: str):
        if name not in {one.name for one in recipes_for(gpu)}:
            pytest.skip(f"{gpu.model_name} is not offered {name}")
        if name not in built:
            built[name] = build(bench, name, gpu)
        return built[name]

    return make


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_the_gpu_gives_the_same_embeddings(bench, artifacts, name):
    rows = bench.embed(artifacts(name), place="cuda")
    assert cosine(rows, bench.expected()) > MIN_COSINE.get(name, 0.995)


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_the_claimed_precision_really_runs_there(bench, artifacts, name):
    artifact = artifacts(name)
    session = bench.open(artifact, place="cuda")
    rows = session.inspect(bench.inputs(make_tokens()[0]))
    executed = [
        ExecutedPrecision(op_type=op, dtype=dtype, count=count, time_share=share)
        for op, dtype, count, share in rows
    ]
    check = judge_precision(artifact.recipe, executed)
    assert check.verdict == "pass", (check.reason, rows)


@pytest.mark.gpu
def test_float32_is_not_taken_for_an_eight_bit_product(bench, artifacts):
    """The twin of the above."""
    rows = bench.open(artifacts("float32"), place="cuda").inspect(bench.inputs(make_tokens()[0]))
    executed = [ExecutedPrecision(op_type=row[0], dtype=row[1], count=row[2]) for row in rows]
    assert judge_precision(recipe_of("float8-dynamic"), executed).verdict == "fail"


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16", "float8-dynamic"])
def test_a_graph_of_every_shape_gives_the_same_embeddings(bench, artifacts, name):
    artifact = artifacts(name)
    plain = bench.open(artifact, place="cuda")
    captured = bench.open(artifact, place="cuda", cuda_graphs="on")
    batches = [bench.inputs(ids) for ids in make_tokens()]
    expected = np.concatenate([plain.run(one) for one in batches])
    for _ in range(2):  # the second time all graphs are there
        rows = np.concatenate([captured.run(one) for one in batches])
        assert cosine(rows, expected) > 0.999
    shapes = {one["attention_mask"].shape for one in batches}
    assert set(captured._embed._captured) == shapes


@pytest.mark.gpu
def test_compiled_blocks_give_the_same_embeddings(bench, artifacts):
    if not has_compiler("cuda"):
        pytest.skip("no C compiler for Triton's launcher")
    artifact = artifacts("bfloat16")
    rows = bench.embed(artifact, place="cuda", compile="dynamic")
    assert cosine(rows, bench.embed(artifact, place="cuda")) > 0.999


@pytest.mark.gpu
def test_the_session_says_which_gpu_and_that_tf32_is_off(bench, artifacts, gpu):
    options = bench.open(artifacts("float32"), place="cuda").options()
    assert (options["gpu"], options["tf32"]) == (gpu.model_name, "off")
    assert options["cuda"]


@pytest.mark.gpu
def test_the_device_s_own_runner(bench, artifacts):
    artifact = artifacts("bfloat16")
    plan = TARGET.run_plan(artifact, bench.graph.artifact, 0, 1)
    with open_device("local:cuda").start(plan, 1) as runner:
        rows = runner.embed(make_tokens())
        assert runner.info().options["place"] == "cuda"
    assert cosine(rows, bench.expected()) > 0.995
