from __future__ import annotations

import pytest

from exporter.judge.precision import is_linear, judge_precision
from targets.contract import ExecutedPrecision, LayerOverride, Recipe


def recipe(precision, float_precision="bfloat16", quantizer="none", overrides=()):
    return Recipe(
        name="r",
        precision=precision,
        float_precision=float_precision,
        quantizer=quantizer,
        overrides=tuple(LayerOverride(pattern=p, precision="float32") for p in overrides),
        why="tested",
    )


def rows(*triples):
    return [ExecutedPrecision(op_type=op, dtype=d, count=n) for op, d, n in triples]


INT8 = recipe("int8", quantizer="nncf_ptq")


def test_int8_that_ran_in_int8_is_proven():
    executed = rows(
        ("FullyConnected", "int8", 36), ("MatMul", "bfloat16", 12), ("Add", "float32", 99)
    )
    check = judge_precision(INT8, executed)
    assert check.verdict == "pass"
    assert check.value == pytest.approx(36 / 48)
    assert check.details == {"int8": "36", "bfloat16": "12"}


def test_unsigned_activations_are_int8_too():
    assert judge_precision(INT8, rows(("FullyConnected", "uint8", 36))).value == 1.0


def test_int8_that_fell_back_fails_by_name():
    check = judge_precision(
        INT8, rows(("FullyConnected", "bfloat16", 36), ("Quantize", "int8", 36))
    )
    assert check.verdict == "fail"
    assert "int8 fell back to float" in check.reason
    assert "36 in bfloat16" in check.reason


def test_int8_that_mostly_fell_back_fails_unless_the_recipe_says_so():
    executed = rows(("FullyConnected", "int8", 6), ("FullyConnected", "float32", 30))
    assert judge_precision(INT8, executed).verdict == "fail"
    partial = recipe("int8", quantizer="nncf_ptq", overrides=("*.dense",))
    assert judge_precision(partial, executed).verdict == "pass"
    assert judge_precision(partial, rows(("FullyConnected", "float32", 36))).verdict == "fail"


@pytest.mark.parametrize("claimed", ["float32", "bfloat16", "float16"])
def test_float_that_ran_in_another_float_fails(claimed):
    other = "bfloat16" if claimed == "float32" else "float32"
    float_recipe = recipe(claimed, float_precision=claimed)
    assert judge_precision(float_recipe, rows(("MatMul", claimed, 36))).verdict == "pass"
    check = judge_precision(float_recipe, rows(("MatMul", other, 36)))
    assert check.verdict == "fail"
    assert f"{claimed} fell back to {other}" in check.reason


def test_weight_only_claims_its_float():
    weight_only = recipe("int8", quantizer="nncf_weight_only")
    assert judge_precision(weight_only, rows(("FullyConnected", "bfloat16", 36))).verdict == "pass"
    assert judge_precision(weight_only, rows(("FullyConnected", "int8", 36))).verdict == "pass"
    assert judge_precision(weight_only, rows(("FullyConnected", "float32", 36))).verdict == "fail"


def test_a_runtime_that_tells_nothing_proves_nothing():
    assert judge_precision(INT8, ()).verdict == "not_run"
    silent = judge_precision(INT8, rows(("Softmax", "int8", 6)))
    assert silent.verdict == "not_run"
    assert "no linear operation" in silent.reason


@pytest.mark.parametrize(
    "op_type",
    [
        "MatMul",
        "MatMulInteger",
        "QLinearMatMul",
        "Gemm",
        "QGemm",
        "FullyConnected",
        "Convolution",
        "MatMulNBits",
        "ConvInteger",
        "Conv",
        "MatrixMultiply",
        "DynamicQuantizeMatMul",
    ],
)
def test_linear_operations_under_every_name(op_type):
    assert is_linear(op_type)


@pytest.mark.parametrize(
    "op_type", ["Convert", "Softmax", "Subgraph", "Reorder", "FakeQuantize", "Gather"]
)
def test_what_is_not_linear(op_type):
    assert not is_linear(op_type)


@pytest.mark.parametrize(
    ("quantizer", "precision", "kernel"),
    [
        ("ort_dynamic", "int8", "DynamicQuantizeMatMul"),
        ("matmul_nbits", "int8", "MatMulNBits"),
        ("matmul_nbits", "int4", "MatMulNBits"),
    ],
)
def test_products_of_onnx_runtime_prove_their_width(quantizer, precision, kernel):
    claimed = recipe(precision, float_precision="float32", quantizer=quantizer)
    executed = rows((kernel, precision, 36), ("MatMul", "float32", 12))
    assert judge_precision(claimed, executed).verdict == "pass"
    fallen = judge_precision(claimed, rows(("MatMul", "float32", 48)))
    assert fallen.verdict == "fail"
    assert f"{precision} fell back to float:" in fallen.reason
    half = judge_precision(claimed, rows((kernel, precision, 18), ("MatMul", "float32", 30)))
    assert half.verdict == "fail", "a shared Q/DQ pair that leaves half in float must show"


def test_eight_bit_blocks_do_not_pass_for_four_and_unknown_ones_for_none():
    claimed = recipe("int4", float_precision="float32", quantizer="matmul_nbits")
    for dtype in ("int8", "unknown"):
        assert judge_precision(claimed, rows(("MatMulNBits", dtype, 36))).verdict == "fail"
