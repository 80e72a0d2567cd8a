"""What became of each linear layer, read from the layers that a build log lists."""

from __future__ import annotations

import pytest

from targets.contract import Structure
from targets.errors import CompileError
from targets.tensorrt.files import require_int8
from targets.tensorrt.inspection import read_layers_list, structure_of

LINEAR = ("a/MatMul", "b/MatMul")
ATTENTION = ("attention/MatMul", "attention/MatMul_1")


def layer(name: str, kind: str, takes: str, gives: str, *nodes: str) -> str:
    """A line as TensorRT for RTX 1.7 writes it."""
    where = "".join(f"[ONNX Layer: {node}]" for node in nodes)
    return (
        f"Name: {name}, LayerType: {kind}, Inputs: [ {{ Name: x, Dimensions: [-1,8], Datatype: "
        f"{takes}, Format: (Linear) }}], Constants: [ {{ Name: w, Datatype: {takes} }}], Outputs: "
        f"[ {{ Name: y, Datatype: {gives}, Format: (Linear) }}], TacticName: t, Metadata: {where}"
    )


def log(*lines: str) -> list[str]:
    return ["Some words", "Layers:\n" + "\n".join(lines) + "\n\nI/O Tensors:", "Name: more"]


def profile(number: int, *, b: str = "Int8", attention: str = "_gemm_mha_v2") -> list[str]:
    return [
        layer(f"a/MatMul_myl{number}_1", "gemm", "Int8", "Half", "a/MatMul"),
        layer(f"__myl_MulAdd_myl{number}_2", "kgen", "Half", "Half", "a/MatMul", "a/Add"),
        layer(f"{attention}_myl{number}_3", "kgen", "Half", "Int8", *ATTENTION),
        layer(f"__myl_FcAdd_myl{number}_4", "runtime_fusion", b, "Half", "b/MatMul"),
    ]


def found(*lines: str) -> Structure:
    return structure_of(read_layers_list(log(*lines)), LINEAR, ATTENTION, "a test")


def counts(structure: Structure) -> dict[tuple[str, str], int]:
    return {(row.op_type, row.dtype): row.count for row in structure.rows}


def test_a_product_counts_and_not_what_follows_it():
    structure = found(*profile(0))
    assert counts(structure) == {
        ("linear", "int8"): 2,
        ("gemm", "int8"): 2,
        ("fused attention", "float16"): 1,
    }
    assert structure.fused_attentions == 1
    assert structure.warnings == ()


@pytest.mark.parametrize(
    ("name", "kind", "counts_as_reformat"),
    [
        ("__myl_MoveReshTran_myl0_4", "kgen", True),
        ("__myl_Tran_myl0_30", "kgen", True),
        ("__myl_MoveReplConc_0_myl0_9", "kgen", True),
        ("Reformatting CopyNode for Input Tensor 0", "Reformat", True),
        ("__myl_AddReshTran_myl0_5", "kgen", False),
        ("__myl_MulAddReshAddCastMeanSubMulMulEtc_myl0_7", "kgen", False),
        ("Tran_myl0_1", "gemm", False),
    ],
)
def test_kernels_that_compute_nothing_are_counted_apart(name, kind, counts_as_reformat):
    structure = found(*profile(0), layer(name, kind, "Half", "Half", "a/Add"))
    assert counts(structure).get(("reformat", "float16"), 0) == int(counts_as_reformat)
    assert counts(structure)["linear", "int8"] == 2, "it is no product"


def test_merged_layers_are_one_product():
    merged = layer("a/MatMul+b/MatMul_myl0_1", "gemm", "Int8", "Half", *LINEAR)
    structure = found(merged, *profile(0)[2:3])
    assert counts(structure)["gemm", "int8"] == 1
    assert counts(structure)["linear", "int8"] == 2


def test_profiles_are_not_added_up_and_the_worst_is_told():
    assert counts(found(*profile(0), *profile(1)))["linear", "int8"] == 2
    structure = found(*profile(0), *profile(1, b="Half"))
    assert counts(structure)["linear", "int8"] == 1
    assert "the optimization profiles differ" in structure.warnings


def test_an_attention_in_pieces_is_a_warning():
    structure = found(*profile(0, attention="__myl_Softmax"))
    assert structure.fused_attentions == 0
    assert "0 of 1 attentions run as one kernel" in structure.warnings


def test_a_layer_that_is_nowhere_is_a_warning():
    structure = found(*profile(0)[:3])
    assert counts(structure)["linear", "unknown"] == 1
    assert any("in no layer of the engine" in one for one in structure.warnings)


def test_a_log_without_layers_says_so():
    structure = structure_of(read_layers_list(["nothing"]), LINEAR, ATTENTION, "a test")
    assert structure.rows == ()
    assert structure.warnings == ("the log lists no layers",)


def test_fewer_int8_layers_than_asked_for_are_an_error():
    require_int8(found(*profile(0)), 2)
    with pytest.raises(CompileError, match="1 of 2 linear layers run in int8") as caught:
        require_int8(found(*profile(0, b="Half")), 2)
    assert "a test" in caught.value.why
