"""What the adapter makes of options and of ONNX Runtime's profile."""

from __future__ import annotations

import pytest

from targets.onnxruntime.session import (
    _DEFAULTS,
    _aggregate,
    _checked_options,
    _executed_dtype,
    _last_runs,
)
from targets.onnxruntime.variants import DEFAULTS


def event(op: str, name: str = "layer", output: str = "float", us: int = 1, index: str = "0"):
    return {
        "cat": "Node",
        "name": f"{name}_kernel_time",
        "dur": us,
        "args": {"op_name": op, "node_index": index, "output_type_shape": [{output: [1, 4]}]},
    }


def test_the_target_sets_every_option_that_the_adapter_knows():
    assert dict(DEFAULTS) == _DEFAULTS


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"graph_optimization_level": "most"}, "disabled, basic, extended, all"),
        ({"execution_mode": "fast"}, "sequential, parallel"),
        ({"intra_op_spinning": "yes"}, "0, 1"),
        ({"concurrent_runs": "0"}, "from 1 on"),
        ({"concurrent_runs": "many"}, "from 1 on"),
        ({"threads": "2"}, "unknown options"),
    ],
)
def test_strange_options_are_named(options, said):
    with pytest.raises(ValueError, match=said) as caught:
        _checked_options(options)
    assert next(iter(options)) in str(caught.value)


def test_options_that_are_left_out_are_set_all_the_same():
    assert _checked_options({"intra_op_spinning": "0"}) == _DEFAULTS | {"intra_op_spinning": "0"}


@pytest.mark.parametrize(
    ("op", "name", "output", "dtype"),
    [
        ("MatMulIntegerToFloat", "layer", "float", "int8"),
        ("DynamicQuantizeMatMul", "layer", "float", "int8"),
        ("MatMulInteger", "layer", "int32", "int8"),
        ("QLinearMatMul", "layer", "uint8", "int8"),
        ("MatMulNBits", "layer/MatMul_Q4", "float", "int4"),
        ("MatMulNBits", "layer/MatMul_Q8", "float", "int8"),
        ("MatMulNBits", "layer/MatMul", "float", "unknown"),
        ("MatMul", "layer_Q8", "float", "float32"),
        ("FusedMatMul", "layer", "float", "float32"),
        ("DequantizeLinear", "layer", "float", "float32"),
        ("QuantizeLinear", "layer", "uint8", "uint8"),
        ("MatMul", "layer", "float16", "float16"),
    ],
)
def test_integer_kernels_are_known_and_float_is_not_hidden(op, name, output, dtype):
    assert _executed_dtype(event(op, name, output)) == dtype


def test_the_last_run_counts_and_nothing_but_kernels():
    session = {"cat": "Session", "name": "model_run", "dur": 99, "args": {}}
    fence = event("MatMul") | {"name": "layer_fence_before"}
    first, second = event("MatMul", us=90), event("MatMul", us=10)
    assert _last_runs([session, fence, first, second]) == [second]


def test_rows_are_counted_by_kind_the_longest_first():
    events = [
        event("MatMul", "a", us=10),
        event("MatMulIntegerToFloat", "b", us=20),
        event("MatMulIntegerToFloat", "c", us=50),
        event("Softmax", "d", us=20),
    ]
    assert _aggregate(events) == [
        ("MatMulIntegerToFloat", "int8", 2, 0.7),
        ("Softmax", "float32", 1, 0.2),
        ("MatMul", "float32", 1, 0.1),
    ]
    assert _aggregate([event("MatMul", us=0)]) == [("MatMul", "float32", 1, None)]
