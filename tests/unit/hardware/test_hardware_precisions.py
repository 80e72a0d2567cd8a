"""Which features back which precision."""

from __future__ import annotations

import pytest

from targets.contract import PRECISIONS, Hardware, Recipe
from targets.hardware.precisions import (
    BACKINGS,
    accelerated,
    backing,
    backing_features,
    is_backed,
)


def machine(*features: str) -> Hardware:
    return Hardware(
        architecture="x86_64",
        vendor="",
        model_name="",
        microarchitecture="",
        features=frozenset(features),
        num_cores=1,
        memory_bytes=1,
    )


def recipe(*requires: str) -> Recipe:
    return Recipe(
        name="r", precision="int8", float_precision="float32", requires=requires, why="because"
    )


def test_every_precision_has_a_row():
    assert set(BACKINGS) == set(PRECISIONS)


@pytest.mark.parametrize(
    ("precision", "features", "words"),
    [
        ("bfloat16", ("avx512_bf16",), "VDPBF16PS"),
        ("bfloat16", ("avx512_bf16", "amx_bf16"), "TDPBF16PS"),
        ("bfloat16", ("bf16",), "BFMMLA"),
        ("int8", ("avx_vnni",), "AVX-VNNI"),
        ("int8", ("avx_vnni", "avx512_vnni"), "AVX512-VNNI"),
        ("int8", ("avx512_vnni", "amx_int8"), "TDPBUSD"),
        ("int8", ("asimddp",), "SDOT"),
        ("int8", ("asimddp", "i8mm"), "SMMLA"),
        ("float16", ("asimdhp",), "FMLA"),
    ],
)
def test_the_strongest_instruction_is_named(precision, features, words):
    assert words in accelerated(machine(*features), precision)


@pytest.mark.parametrize(
    ("precision", "features"),
    [
        ("bfloat16", ("avx512_vnni", "amx_int8")),
        ("int8", ("avx2", "avx512f", "amx_bf16")),
        ("float16", ("avx512_fp16", "f16c")),
        ("float32", ("avx512f",)),
    ],
)
def test_nothing_backs_it(precision, features):
    assert accelerated(machine(*features), precision) is None
    assert backing(machine(*features), precision) is None


def test_any_required_feature_is_enough():
    assert is_backed(recipe(), machine())
    assert is_backed(recipe("amx_int8", "avx_vnni"), machine("avx_vnni"))
    assert not is_backed(recipe("amx_int8", "avx_vnni"), machine("avx2"))


def test_backing_features_are_those_of_the_table():
    assert backing_features("int8")[0] == "amx_int8"
    assert backing_features("float32") == ()
