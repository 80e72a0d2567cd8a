"""Which recipes OpenVINO is given on which CPU."""

from __future__ import annotations

from dataclasses import replace

import pytest

from targets.contract import Hardware, LayerOverride, QdqScheme, Recipe
from targets.errors import CompileError
from targets.hardware.precisions import is_backed
from targets.openvino.recipes import (
    ACTIVATION_GROUPS,
    ATTENTION_PRODUCTS,
    FFN_DOWN,
    best_float,
    check_recipe,
    recipes_for,
)


def cpu(*features: str) -> Hardware:
    return Hardware(
        architecture="",
        vendor="",
        model_name="",
        microarchitecture="",
        features=frozenset(features),
        num_cores=1,
        memory_bytes=1,
    )


HASWELL = cpu("avx2", "fma")
ALDER_LAKE = cpu("avx2", "avx_vnni")
CASCADE_LAKE = cpu("avx512f", "avx512_vnni")
COOPER_LAKE = cpu("avx512f", "avx512_vnni", "avx512_bf16")
SAPPHIRE_RAPIDS = cpu("avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
CORTEX_A72 = cpu("asimd")
NEOVERSE_N1 = cpu("asimd", "asimdhp", "fphp", "asimddp")

STATIC = "int8-static"
CALIBRATED = ["int8", "int8-mixed"]
BESIDE_HALF = ["int8", "int8-attention-float", "int8-mixed"]
DYNAMIC = ["int8-dynamic", "int8-dynamic-128"]


def names(hardware: Hardware) -> list[str]:
    return [recipe.name for recipe in recipes_for(hardware)]


def named(hardware: Hardware, name: str) -> Recipe:
    return next(recipe for recipe in recipes_for(hardware) if recipe.name == name)


@pytest.mark.parametrize(
    ("hardware", "expected"),
    [
        (HASWELL, ["float32", STATIC, *CALIBRATED, "int8-weights"]),
        (ALDER_LAKE, ["float32", STATIC, *DYNAMIC, *CALIBRATED, "int8-weights"]),
        (CASCADE_LAKE, ["float32", STATIC, *DYNAMIC, *CALIBRATED, "int8-weights"]),
        (COOPER_LAKE, ["float32", STATIC, "bfloat16", *DYNAMIC, *CALIBRATED, "int8-weights"]),
        (SAPPHIRE_RAPIDS, ["float32", STATIC, "bfloat16", *BESIDE_HALF, "int8-weights"]),
        (CORTEX_A72, ["float32", STATIC, *CALIBRATED, "int8-weights"]),
        (NEOVERSE_N1, ["float32", STATIC, "float16", *BESIDE_HALF, "int8-weights"]),
    ],
)
def test_candidates_follow_the_features(hardware, expected):
    assert names(hardware) == expected


@pytest.mark.parametrize(
    ("hardware", "precision"),
    [
        (HASWELL, "float32"),
        (COOPER_LAKE, "float32"),
        (SAPPHIRE_RAPIDS, "bfloat16"),
        (NEOVERSE_N1, "float16"),
        (CORTEX_A72, "float32"),
    ],
)
def test_int8_rests_on_the_best_float(hardware, precision):
    assert best_float(hardware) == precision
    for name in (*CALIBRATED, "int8-weights"):
        recipe = named(hardware, name)
        assert recipe.float_precision == precision
        assert all(override.precision == precision for override in recipe.overrides)


@pytest.mark.parametrize(
    ("hardware", "precision"),
    [
        (HASWELL, "float32"),
        (CASCADE_LAKE, "float32"),
        (COOPER_LAKE, "bfloat16"),
        (SAPPHIRE_RAPIDS, "bfloat16"),
        (NEOVERSE_N1, "float16"),
        (CORTEX_A72, "float32"),
    ],
)
def test_static_int8_rests_on_what_loaders_take_by_themselves(hardware, precision):
    assert named(hardware, STATIC).float_precision == precision


def test_int8_without_an_int8_instruction_is_listed_but_not_backed():
    for name in (STATIC, *CALIBRATED):
        recipe = named(HASWELL, name)
        assert not is_backed(recipe, HASWELL)
        assert is_backed(recipe, CASCADE_LAKE)
        assert "loses" in recipe.why
    assert is_backed(named(HASWELL, "int8-weights"), HASWELL)


def test_reasons_name_the_instruction():
    assert "TDPBUSD" in named(SAPPHIRE_RAPIDS, "int8").why
    assert "TDPBF16PS" in named(SAPPHIRE_RAPIDS, "bfloat16").why
    assert "no AMX" in named(COOPER_LAKE, "bfloat16").why
    assert "SDOT" in named(NEOVERSE_N1, "int8-mixed").why
    for hardware in (HASWELL, COOPER_LAKE, SAPPHIRE_RAPIDS, NEOVERSE_N1):
        for recipe in recipes_for(hardware):
            assert "\n" not in recipe.why
            assert not recipe.why.endswith(".")


def test_layers_left_in_float():
    def patterns(name: str) -> list[str]:
        return [override.pattern for override in named(SAPPHIRE_RAPIDS, name).overrides]

    assert patterns("int8") == []
    assert patterns("int8-attention-float") == [ATTENTION_PRODUCTS]
    assert patterns("int8-mixed") == [ATTENTION_PRODUCTS, FFN_DOWN]


def test_static_int8_says_how_integers_stand_for_floats():
    recipe = named(CASCADE_LAKE, STATIC)
    assert (recipe.quantizer, recipe.precision) == ("qdq", "int8")
    assert recipe.scheme == QdqScheme(integers="U8S8", symmetric=False)
    assert (recipe.embeddings, recipe.overrides) == ("int8", ())
    for other in recipes_for(CASCADE_LAKE):
        assert (other.scheme is not None) == (other.quantizer == "qdq")


def test_dynamic_recipes_all_have_a_group():
    assert list(ACTIVATION_GROUPS) == DYNAMIC


@pytest.mark.parametrize(
    "hardware", [HASWELL, CASCADE_LAKE, COOPER_LAKE, SAPPHIRE_RAPIDS, NEOVERSE_N1]
)
def test_own_recipes_are_accepted(hardware):
    for recipe in recipes_for(hardware):
        check_recipe(recipe)


@pytest.mark.parametrize("hardware", [CASCADE_LAKE, SAPPHIRE_RAPIDS])
def test_static_int8_takes_layers_back_into_int8(hardware):
    """A user's pattern may undo a mixed recipe's; only our own quantizer can do that."""
    rest = best_float(hardware)
    overrides = (
        LayerOverride(pattern=FFN_DOWN, precision=rest),
        LayerOverride(pattern="*.0.output.dense", precision="int8"),
    )
    check_recipe(replace(named(hardware, STATIC), overrides=overrides))
    with pytest.raises(CompileError, match="none of OpenVINO's"):
        check_recipe(replace(named(hardware, "int8"), overrides=overrides))


FLOAT = named(SAPPHIRE_RAPIDS, "float32")
INT8 = named(SAPPHIRE_RAPIDS, "int8")
QDQ = named(SAPPHIRE_RAPIDS, STATIC)


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        (replace(INT8, quantizer="none"), "cannot be built"),
        (replace(FLOAT, quantizer="nncf_ptq"), "cannot be built"),
        (replace(INT8, float_precision="int8"), "float_precision is int8"),
        (replace(FLOAT, float_precision="bfloat16"), "leaves nothing for bfloat16"),
        (
            replace(FLOAT, overrides=(LayerOverride(pattern="*", precision="float32"),)),
            "no overrides",
        ),
        (
            replace(INT8, overrides=(LayerOverride(pattern="*.key", precision="float32"),)),
            "'*.key' asks for float32; layers stay in bfloat16",
        ),
        (
            replace(QDQ, overrides=(LayerOverride(pattern="*.key", precision="float32"),)),
            "'*.key' asks for float32; layers stay in bfloat16",
        ),
        (replace(QDQ, scheme=None), "does not say how integers stand for floats"),
        (replace(QDQ, embeddings="bfloat16"), "embedding tables in bfloat16"),
    ],
)
def test_strange_recipes_are_refused_by_name(recipe, reason):
    strange = replace(recipe, name="strange-one")
    with pytest.raises(CompileError) as caught:
        check_recipe(strange)
    assert "'strange-one'" in caught.value.what
    assert reason in caught.value.why
