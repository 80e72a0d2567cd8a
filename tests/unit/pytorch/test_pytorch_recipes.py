"""Which recipes PyTorch is given on which CPU, and what is refused before anything is loaded."""

from __future__ import annotations

from dataclasses import replace

import pytest

from targets.contract import Hardware, LayerOverride, Recipe
from targets.errors import CompileError
from targets.hardware.precisions import is_backed
from targets.hardware.profiles import cpu_profile
from targets.pytorch import target
from targets.pytorch.recipes import check_recipe, recipes_for
from targets.pytorch.target import TorchTarget

FLOATS = ["float32", "bfloat16"]
QUANTIZED = [
    "int8-dynamic",
    "int8-packed-dynamic",
    "int8-weights",
    "int8-weights-half-tables",
    "int8-outliers",
    "nf4-weights",
    "int4-weights",
]


def named(name: str) -> Hardware:
    return cpu_profile(name).hardware(num_cores=2, memory_bytes=1 << 30)


HASWELL, ICE_LAKE, SAPPHIRE_RAPIDS = named("haswell"), named("icelake"), named("sapphirerapids")
NEOVERSE_N1, NEOVERSE_V2 = named("neoverse-n1"), named("neoverse-v2")


def recipe(name: str, hardware: Hardware = HASWELL) -> Recipe:
    return next(one for one in recipes_for(hardware) if one.name == name)


@pytest.mark.parametrize("hardware", [HASWELL, ICE_LAKE, NEOVERSE_N1])
def test_without_a_bfloat16_product_there_is_no_bfloat16(hardware):
    assert [one.name for one in recipes_for(hardware)] == ["float32", *QUANTIZED]


@pytest.mark.parametrize("hardware", [SAPPHIRE_RAPIDS, NEOVERSE_V2])
def test_with_one_there_is(hardware):
    found = recipes_for(hardware)
    assert [one.name for one in found] == [*FLOATS, *QUANTIZED]
    assert is_backed(found[1], hardware)


@pytest.mark.parametrize("hardware", [HASWELL, ICE_LAKE, SAPPHIRE_RAPIDS, NEOVERSE_V2])
def test_every_recipe_can_be_built(hardware):
    for one in recipes_for(hardware):
        check_recipe(one)
        assert (one.outlier_threshold is None) == (one.quantizer != "bnb_int8")


def test_dynamic_int8_is_tried_unasked_only_where_something_multiplies_it():
    assert not is_backed(recipe("int8-dynamic"), HASWELL)
    assert is_backed(recipe("int8-dynamic", ICE_LAKE), ICE_LAKE)
    assert not is_backed(recipe("int4-weights"), HASWELL)
    assert not is_backed(recipe("int8-outliers"), HASWELL)
    assert is_backed(recipe("int8-packed-dynamic"), HASWELL)
    assert is_backed(recipe("int8-packed-dynamic", NEOVERSE_N1), NEOVERSE_N1)


def test_seven_bits_are_told_where_pairs_saturate():
    assert "seven bits" in recipe("int8-packed-dynamic", HASWELL).why
    assert "seven bits" not in recipe("int8-packed-dynamic", ICE_LAKE).why


@pytest.mark.parametrize(
    ("name", "precision", "fits"),
    [
        ("int8-weights", "float32", True),
        ("int8-weights", "int4", True),
        ("int4-weights", "int8", True),
        ("int8-dynamic", "int4", False),
        ("nf4-weights", "int8", False),
        ("int8-outliers", "float16", False),
    ],
)
def test_which_widths_layers_may_differ_in(name, precision, fits):
    asked = replace(recipe(name), overrides=(LayerOverride(pattern="*", precision=precision),))
    if fits:
        check_recipe(asked)
        return
    with pytest.raises(CompileError) as refused:
        check_recipe(asked)
    assert f"asks for {precision}" in refused.value.why


def test_float_recipes_take_no_overrides():
    kept = LayerOverride(pattern="*", precision="float32")
    with pytest.raises(CompileError) as refused:
        check_recipe(replace(recipe("float32"), overrides=(kept,)))
    assert "takes no overrides" in refused.value.why


def test_recipes_of_a_quantizer_that_is_not_installed_are_left_out_and_said(monkeypatch):
    def lacking(distributions: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name for name in distributions if name in ("torchao", "accelerate"))

    monkeypatch.setattr(target, "lacking", lacking)
    names = [one.name for one in TorchTarget().candidates(None, HASWELL)]
    assert names == ["float32", "int8-packed-dynamic"]
    from targets.registry import open_device

    found = TorchTarget().probe(open_device("local"))
    assert found.ok
    told = " ".join(found.missing)
    assert "no recipes by torchao" in told
    assert "accelerate not installed" in told
    assert "pip install" in told
