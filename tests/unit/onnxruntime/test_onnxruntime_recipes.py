"""Which recipes ONNX Runtime is given on which CPU."""

from __future__ import annotations

from dataclasses import replace

import pytest

from targets.contract import Hardware, LayerOverride, QdqScheme, Recipe
from targets.errors import CompileError
from targets.hardware.precisions import is_backed
from targets.hardware.profiles import cpu_profile
from targets.onnxruntime.recipes import BLOCK_FEATURES, check_recipe, recipes_for

NAMES = ["float32", "int8-static", "int8-dynamic", "int8-weights", "int4-weights"]
QUANTIZED = NAMES[1:]
INTEGER_PRODUCTS = NAMES[1:3]


def named(name: str) -> Hardware:
    return cpu_profile(name).hardware(num_cores=2, memory_bytes=1 << 30)


PLAIN = replace(named("haswell"), features=frozenset({"sse4_2"}))
HASWELL, SKYLAKE_X, ICE_LAKE = named("haswell"), named("skylake_avx512"), named("icelake")
SAPPHIRE_RAPIDS, ZEN4 = named("sapphirerapids"), named("zen4")
CORTEX_A72, NEOVERSE_N1, NEOVERSE_V2 = (
    named("cortex-a72"),
    named("neoverse-n1"),
    named("neoverse-v2"),
)
EVERY = (
    PLAIN,
    HASWELL,
    SKYLAKE_X,
    ICE_LAKE,
    SAPPHIRE_RAPIDS,
    ZEN4,
    CORTEX_A72,
    NEOVERSE_N1,
    NEOVERSE_V2,
)
SATURATING = (PLAIN, HASWELL, SKYLAKE_X)


def recipe(hardware: Hardware, name: str) -> Recipe:
    return next(one for one in recipes_for(hardware) if one.name == name)


@pytest.mark.parametrize("hardware", EVERY, ids=lambda one: one.model_name)
def test_every_cpu_gets_the_same_recipes_in_the_order_of_promise(hardware):
    found = recipes_for(hardware)
    assert [one.name for one in found] == NAMES
    for one in found:
        check_recipe(one)
        assert one.float_precision == "float32"
        assert (one.scheme is not None) == (one.quantizer == "qdq")
        assert one.embeddings == ("float32" if one.name == "float32" else "int8")
        assert not one.why.endswith(".")


def test_what_quantizes_what():
    made = {one.name: (one.quantizer, one.precision) for one in recipes_for(ZEN4)}
    assert made == {
        "float32": ("none", "float32"),
        "int8-static": ("qdq", "int8"),
        "int8-dynamic": ("ort_dynamic", "int8"),
        "int8-weights": ("matmul_nbits", "int8"),
        "int4-weights": ("matmul_nbits", "int4"),
    }
    assert recipe(ZEN4, "int8-static").scheme == QdqScheme(integers="U8S8", symmetric=False)


@pytest.mark.parametrize(
    ("hardware", "instruction"),
    [
        (HASWELL, "AVX2 VPMADDUBSW"),
        (SKYLAKE_X, "AVX-512 VPMADDUBSW"),
        (ICE_LAKE, "AVX512-VNNI dot product VPDPBUSD"),
        (ZEN4, "AVX512-VNNI dot product VPDPBUSD"),
        (SAPPHIRE_RAPIDS, "AMX tile product TDPBUSD"),
        (CORTEX_A72, "NEON widening SMULL"),
        (NEOVERSE_N1, "ARM dot product SDOT"),
        (NEOVERSE_V2, "ARM int8 matrix product SMMLA"),
    ],
    ids=lambda one: one if isinstance(one, str) else one.model_name,
)
def test_integer_products_name_their_instruction(hardware, instruction):
    for name in INTEGER_PRODUCTS:
        assert instruction in recipe(hardware, name).why
        assert is_backed(recipe(hardware, name), hardware)


def test_a_cpu_without_int8_products_is_told_so():
    for name in QUANTIZED:
        assert not is_backed(recipe(PLAIN, name), PLAIN)
        assert "lose" in recipe(PLAIN, name).why


@pytest.mark.parametrize("hardware", EVERY, ids=lambda one: one.model_name)
def test_seven_bits_only_where_pairs_of_products_saturate(hardware):
    for name in INTEGER_PRODUCTS:
        assert ("seven bits" in recipe(hardware, name).why) == (hardware in SATURATING)


def test_block_weights_need_a_kernel_of_their_own():
    assert is_backed(recipe(HASWELL, "int4-weights"), HASWELL)
    assert not is_backed(recipe(CORTEX_A72, "int4-weights"), CORTEX_A72)
    assert "expanded" in recipe(CORTEX_A72, "int4-weights").why
    assert recipe(ZEN4, "int8-weights").requires == BLOCK_FEATURES


FLOAT, STATIC = recipe(ZEN4, "float32"), recipe(ZEN4, "int8-static")
BLOCKS = recipe(ZEN4, "int4-weights")


def kept(precision: str) -> tuple[LayerOverride, ...]:
    return (LayerOverride(pattern="*.key", precision=precision),)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("strange", "reason"),
    [
        (replace(STATIC, quantizer="none"), "cannot be built"),
        (replace(STATIC, quantizer="nncf_ptq"), "cannot be built"),
        (replace(FLOAT, precision="float16"), "cannot be built"),
        (replace(STATIC, precision="int4"), "cannot be built"),
        (replace(STATIC, float_precision="bfloat16"), "run in float32, not in bfloat16"),
        (replace(STATIC, scheme=None), "does not say how integers stand for floats"),
        (replace(STATIC, embeddings="bfloat16"), "embedding tables in bfloat16"),
        (replace(FLOAT, overrides=kept("float32")), "takes no overrides"),
        (replace(FLOAT, embeddings="int8"), "keeps embedding tables in float32"),
        (replace(STATIC, overrides=kept("float16")), "'*.key' asks for float16"),
        (replace(BLOCKS, overrides=kept("int8")), "'*.key' asks for int8"),
    ],
)
def test_strange_recipes_are_refused_by_name(strange, reason):
    with pytest.raises(CompileError) as caught:
        check_recipe(replace(strange, name="strange-one"))
    assert "'strange-one'" in caught.value.what
    assert reason in caught.value.why


def test_layers_may_stay_in_float_or_come_back():
    check_recipe(replace(STATIC, overrides=(*kept("float32"), *kept("int8"))))
    check_recipe(replace(BLOCKS, overrides=(*kept("float32"), *kept("int4"))))
