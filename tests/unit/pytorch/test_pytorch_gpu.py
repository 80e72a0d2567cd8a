"""PyTorch on a GPU, as far as it is known without one: recipes, variants, what is read back."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from targets.contract import Hardware, LayerOverride, Recipe, RunPlan
from targets.errors import CompileError
from targets.hardware.explain import explain_recipe
from targets.hardware.gpu_hardware import hardware_of_gpus
from targets.hardware.gpus import gpu_profile
from targets.hardware.precisions import accelerated_precisions, is_backed
from targets.pytorch.executed import _aggregate
from targets.pytorch.recipes import check_recipe, recipes_for
from targets.pytorch.session import _widened
from targets.pytorch.variants import DEFAULTS, variants_of_plan


def named(name: str) -> Hardware:
    profile = gpu_profile(name)
    return hardware_of_gpus([profile], profile.names[0])


T4, A100, L4, H100 = map(named, ("T4", "A100", "L4", "H100"))
FIRST_TRIED = {
    "T4": ["float32", "float16", "int8-outliers", "nf4-weights"],
    "A100": [
        *("float32", "float16", "bfloat16", "int8-dynamic", "int8-weights", "int4-weights"),
        *("int8-outliers", "nf4-weights"),
    ],
}
EIGHT_BITS = [*FIRST_TRIED["A100"][:3], "float8-dynamic", *FIRST_TRIED["A100"][3:]]


def recipe(name: str, hardware: Hardware = H100) -> Recipe:
    return next(one for one in recipes_for(hardware) if one.name == name)


# ------------------------------------------------------------------------------ recipes


@pytest.mark.parametrize(
    ("hardware", "expected"),
    [(T4, FIRST_TRIED["T4"]), (A100, FIRST_TRIED["A100"]), (L4, EIGHT_BITS), (H100, EIGHT_BITS)],
)
def test_what_the_tensor_cores_multiply_is_tried_unasked(hardware, expected):
    assert [one.name for one in recipes_for(hardware) if is_backed(one, hardware)] == expected


@pytest.mark.parametrize("hardware", [T4, A100, L4, H100])
def test_every_recipe_can_be_built(hardware):
    for one in recipes_for(hardware):
        check_recipe(one)
        assert (one.outlier_threshold is None) == (one.quantizer != "bnb_int8")
        assert one.embeddings == one.float_precision


def test_float8_has_no_tensor_cores_before_ada_and_says_so():
    assert "sm_80 has no tensor cores for it" in recipe("float8-dynamic", A100).why
    assert "the tensor cores of sm_90 multiply it" in recipe("float8-dynamic").why


def test_the_baseline_says_that_tf32_is_off():
    assert "TF32 off" in recipe("float32").why


def test_what_backs_a_recipe_is_named():
    assert "tensor core product fp8 (tensor_fp8)" in explain_recipe(recipe("float8-dynamic"), H100)
    assert "only tried when asked for" in explain_recipe(recipe("float8-dynamic", A100), A100)
    assert "float8" in accelerated_precisions(H100)
    assert "float8" not in accelerated_precisions(A100)


def test_float8_layers_do_not_mix_with_integers():
    mixed = LayerOverride(pattern="*", precision="int8")
    with pytest.raises(CompileError) as refused:
        check_recipe(replace(recipe("float8-dynamic"), overrides=(mixed,)))
    assert "asks for int8" in refused.value.why
    with pytest.raises(CompileError):
        check_recipe(replace(recipe("int8-dynamic"), float_precision="float8"))


# ---------------------------------------------------------------------- ways of running


def plan(**options: str) -> RunPlan:
    return RunPlan(
        adapter=Path("session.py"),
        model=Path("model.safetensors"),
        inputs=("input_ids", "attention_mask"),
        output="sentence_embedding",
        pad_token_id=0,
        embedding_dim=4,
        max_seq_length=64,
        options={**DEFAULTS, **options},
    )


def test_graphs_are_a_way_of_running_on_a_gpu_only():
    on_gpu = [one.name for one in variants_of_plan(plan(place="cuda"), 2)]
    assert on_gpu[:3] == ["cuda-graphs", "compiled-cuda-graphs", "compiled"]
    on_cpu = [one.name for one in variants_of_plan(plan(), 2)]
    assert on_cpu == ["compiled", "batch-tokens-4096"]


def test_no_variant_moves_an_artifact_to_another_place():
    for place in ("cpu", "cuda"):
        found = variants_of_plan(plan(place=place), 2)
        assert {one.plan.options["place"] for one in found} == {place}


# ----------------------------------------------------------------- what the session does


def test_a_short_batch_is_widened_by_masked_columns():
    rows = np.arange(1, 11, dtype=np.int64).reshape(2, 5)
    given = {"input_ids": rows, "attention_mask": np.ones_like(rows)}
    wide = _widened(given, 24)
    assert wide["input_ids"].shape == (2, 12)
    assert np.array_equal(wide["input_ids"][:, :5], rows)
    assert wide["attention_mask"].sum() == 10
    assert _widened(given, 10) is given
    assert _widened(given, 0) is given


@dataclass
class Event:
    """What is read of the profiler's events, which no GPU is here to make."""

    id: int
    name: str
    self_cpu_time_total: float = 1.0
    self_device_time_total: float = 0.0
    cpu_children: list[Event] = field(default_factory=list)


def test_a_gpu_s_own_time_is_shared_out_where_it_is_told():
    events = [
        Event(1, "aten::_scaled_mm", 1.0, 6.0),
        Event(2, "aten::_int_mm", 1.0, 2.0),
        Event(3, "aten::mm", 1.0, 1.0),
        Event(4, "triton_poi_fused_gelu_0", 1.0, 1.0),
        Event(5, "void gemm::kernel<float>", 0.0, 10.0),  # a kernel: its operator has its time
        Event(6, "cudaLaunchKernel", 5.0, 0.0),
    ]
    types = {1: ["c10::Float8_e4m3fn"], 2: ["signed char"], 3: ["c10::BFloat16"]}
    rows = {(op, dtype): (count, share) for op, dtype, count, share in _aggregate(events, types)}
    assert rows == {
        ("MatMul (_scaled_mm)", "float8"): (1, 0.6),
        ("MatMul (_int_mm)", "int8"): (1, 0.2),
        ("MatMul (mm)", "bfloat16"): (1, 0.1),
        ("Fused", "unknown"): (1, 0.1),
    }


def test_without_it_the_time_is_the_cpu_s():
    events = [Event(1, "aten::mm", 3.0), Event(2, "aten::add", 1.0)]
    rows = {op: share for op, _, _, share in _aggregate(events, {1: ["float"], 2: ["float"]})}
    assert rows == {"MatMul (mm)": 0.75, "add": 0.25}
