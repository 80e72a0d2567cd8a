"""Which layers a recipe leaves in float."""

from __future__ import annotations

import pytest
from contract.tiny_graph import FFN_DOWN_PATHS, LINEAR_PATHS, build_model, make_weights

from targets.contract import LayerOverride, Precision, Recipe
from targets.errors import CompileError
from targets.quantization.layers import read_layers
from targets.quantization.overrides import quantized_layers

LAYERS = read_layers(build_model(make_weights(0)))


def chosen(*overrides: tuple[str, Precision], precision: Precision = "int8") -> set[str]:
    recipe = Recipe(
        name="r",
        precision=precision,
        float_precision="float32",
        quantizer="qdq",
        overrides=tuple(LayerOverride(pattern=p, precision=o) for p, o in overrides),
        why="tested",
    )
    return {layer.path for layer in quantized_layers(recipe, LAYERS)}


def test_all_layers_without_overrides():
    assert chosen() == set(LINEAR_PATHS)


def test_patterns_leave_layers_in_float():
    assert chosen(("ffn.down", "float32")) == set(LINEAR_PATHS) - set(FFN_DOWN_PATHS)


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_a_later_pattern_takes_layers_back(precision):
    overrides = (("ffn.down", "float32"), ("*.1.output.dense", precision))
    assert chosen(*overrides, precision=precision) == set(LINEAR_PATHS) - {FFN_DOWN_PATHS[0]}
    assert FFN_DOWN_PATHS[1] not in chosen(*overrides[::-1], precision=precision)


def test_a_pattern_that_matches_nothing_is_named():
    with pytest.raises(CompileError, match=r"recipe 'r': no layer matches 'encoder\.x'") as caught:
        chosen(("encoder.x", "float32"))
    assert "nearest" in caught.value.why


def test_nothing_left_is_no_quantized_recipe():
    with pytest.raises(CompileError, match="leaves no layer in int8"):
        chosen(("*", "float32"))
