"""Why a precision or a recipe is fast on a CPU, in words."""

from __future__ import annotations

import pytest

from targets.contract import PRECISIONS, Recipe
from targets.hardware.explain import WEIGHTS_ONLY, explain_precision, explain_recipe
from targets.hardware.precisions import (
    ONNX_RUNTIME,
    OPENVINO,
    accelerated,
    accelerated_precisions,
    backing_features,
)
from targets.hardware.profiles import cpu_profile, cpu_profiles


def on(name: str):
    return cpu_profile(name).hardware(1, 1)


def recipe(precision: str, **others) -> Recipe:
    return Recipe(
        name="r", precision=precision, why="w", **{"float_precision": "float32", **others}
    )


@pytest.mark.parametrize(
    ("name", "runtime", "expected"),
    [
        ("sapphire-rapids", OPENVINO, ("bfloat16", "int8")),
        ("sapphire-rapids", ONNX_RUNTIME, ("int8",)),
        ("sapphire-rapids", "", ("bfloat16", "int8")),
        ("graviton3", OPENVINO, ("float16", "int8")),
        ("graviton3", ONNX_RUNTIME, ("bfloat16", "float16", "int8")),
        ("graviton3", "A vendor's runtime", ("bfloat16", "float16", "int8")),
        ("graviton2", ONNX_RUNTIME, ("float16", "int8")),
        ("cortex-a72", ONNX_RUNTIME, ()),
        ("haswell", OPENVINO, ()),
    ],
)
def test_accelerated_precisions_by_runtime(name, runtime, expected):
    assert accelerated_precisions(on(name), runtime) == expected


def test_a_longer_runtime_name_is_the_same_runtime():
    named = f"{ONNX_RUNTIME} Mobile"
    assert accelerated(on("sapphire-rapids"), "bfloat16", named) is None
    assert accelerated(on("sapphire-rapids"), "bfloat16", OPENVINO) is not None


def test_float16_on_x86_backs_no_recipe():
    assert "avx512_fp16" in on("sapphire-rapids").features
    assert accelerated(on("sapphire-rapids"), "float16") is None
    assert backing_features("float16") == ("asimdhp", "fphp")
    assert backing_features("bfloat16", ONNX_RUNTIME) == ("bf16",)


@pytest.mark.parametrize(
    ("name", "precision", "runtime", "faster", "words"),
    [
        ("sapphire-rapids", "int8", ONNX_RUNTIME, True, "TDPBUSD (amx_int8)"),
        ("graviton3", "int8", "", True, "SMMLA (i8mm)"),
        ("haswell", "int8", "", False, "VPMADDUBSW and VPMADDWD (avx2); no dot product"),
        ("skylake-server", "int8", "", False, "AVX-512 VPMADDUBSW"),
        ("cortex-a72", "int8", "", False, "SMULL, SMLAL and SADALP (asimd); no dot product"),
        ("cortex-a72", "float32", "", False, "NEON FMLA, 4 values at once (asimd)"),
        ("haswell", "float32", "", False, "FMA3 VFMADD"),
        ("zen4", "float32", "", False, "AVX-512 VFMADD"),
        ("zen4", "int4", "", False, "an eighth of float32's bandwidth"),
        ("zen4", "bfloat16", ONNX_RUNTIME, False, "no bfloat16 MatMul"),
        ("sapphire-rapids", "float16", OPENVINO, False, "slower in float16"),
        ("haswell", "bfloat16", OPENVINO, False, "no instruction"),
    ],
)
def test_a_precision_is_explained(name, precision, runtime, faster, words):
    found = explain_precision(on(name), precision, runtime)
    assert words in found.words
    assert found.accelerated is faster
    assert (found.feature in on(name).features) == bool(found.instruction)


def test_every_precision_is_explained_on_every_cpu():
    for row in cpu_profiles():
        hardware = row.hardware(1, 1)
        for precision in PRECISIONS:
            for runtime in ("", OPENVINO, ONNX_RUNTIME):
                found = explain_precision(hardware, precision, runtime)
                assert found.words
                assert found.accelerated is (accelerated(hardware, precision, runtime) is not None)


# ----------------------------------------------------------------------------- recipes


@pytest.mark.parametrize(
    ("name", "one", "words"),
    [
        ("zen4", recipe("float32"), "AVX-512 VFMADD, 16 values at once (avx512f)"),
        ("zen4", recipe("int8", quantizer="qdq"), "AVX512-VNNI dot product VPDPBUSD"),
        ("haswell", recipe("int8", quantizer="ort_dynamic"), "AVX2 VPMADDUBSW"),
        ("zen4", recipe("int8", quantizer="nncf_weight_only"), WEIGHTS_ONLY["int8"]),
        ("zen4", recipe("int4", quantizer="matmul_nbits"), WEIGHTS_ONLY["int4"]),
        (
            "zen4",
            recipe("int8", quantizer="nncf_weight_only", requires=("avx_vnni", "avx512_vnni")),
            "VPDPBUSD (avx512_vnni)",
        ),
        (
            "sapphire-rapids",
            recipe("int8", quantizer="qdq", float_precision="bfloat16"),
            "TDPBUSD (amx_int8); the rest in bfloat16 by AMX tile product TDPBF16PS (amx_bf16)",
        ),
        (
            "sapphire-rapids",
            recipe("int8", quantizer="qdq", requires=("avx_vnni",)),
            "AVX-VNNI dot product VPDPBUSD (avx_vnni)",
        ),
        (
            "cortex-a72",
            recipe("int8", quantizer="qdq", requires=backing_features("int8")),
            "SADALP (asimd); no dot product, so it may lose to float32; only tried when asked for",
        ),
        (
            "cortex-a72",
            recipe("int8", quantizer="matmul_nbits", requires=("asimddp",)),
            f"{WEIGHTS_ONLY['int8']}; only tried when asked for",
        ),
        ("haswell", recipe("bfloat16", requires=("amx_bf16",)), "only tried when asked for"),
    ],
)
def test_a_recipe_is_explained(name, one, words):
    assert words in explain_recipe(one, on(name))


def test_what_is_backed_is_not_said_to_be_unasked():
    backed = recipe("int8", quantizer="qdq", requires=backing_features("int8"))
    assert "asked" not in explain_recipe(backed, on("graviton2"))
