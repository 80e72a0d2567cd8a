"""Which layers stay in float, and the recipes made of that."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.optimize.probe import drift
from exporter.optimize.sensitivity import (
    KEPT_DRIFT,
    layers_to_keep,
    measure_sensitivity,
    mixed_recipes,
    with_layer_precisions,
)
from exporter.values import LayerSensitivity
from targets.contract import LayerOverride, QdqScheme, Recipe, TokenSequences
from targets.quantization.calibrators import Range
from targets.quantization.layers import LinearLayer
from targets.quantization.plan import LayerPlan

BASE = Recipe(
    name="int8-static",
    precision="int8",
    float_precision="bfloat16",
    quantizer="qdq",
    scheme=QdqScheme(),
    embeddings="int8",
    why="all of it",
)


def group(drift: float, work: float = 0.25, *layers: str) -> LayerSensitivity:
    return LayerSensitivity(layers=layers or (f"layer.{drift}",), drift=drift, work_share=work)


def linear(path: str, activation: str = "x", *, ends_ffn: bool = False) -> LinearLayer:
    return LinearLayer(
        path=path,
        node=f"{path}/MatMul",
        activation=activation,
        weight=f"{path}.weight",
        output_axis=1,
        transposed=False,
        bias=None,
        output=path,
        ends_ffn=ends_ffn,
    )


# -------------------------------------------------------------------------- layers to keep

GROUPS = st.lists(
    st.tuples(st.floats(0, 1), st.floats(1e-3, 1)), min_size=1, max_size=12
).map(
    lambda pairs: [
        LayerSensitivity(layers=(f"{n}.a", f"{n}.b"), drift=one, work_share=work)
        for n, (one, work) in enumerate(pairs)
    ]
)  # fmt: skip


@given(groups=GROUPS, share=st.floats(0.01, 0.99))
def test_what_is_kept_is_enough_and_not_more(groups: list[LayerSensitivity], share: float) -> None:
    kept = layers_to_keep(groups, share)
    assert len(set(kept)) == len(kept)
    by_layer = {layer: one for one in groups for layer in one.layers}
    chosen = list(dict.fromkeys(by_layer[layer].layers for layer in kept))
    assert [layer for layers in chosen for layer in layers] == list(kept), "whole groups"
    whole = sum(one.drift for one in groups)
    removed = [by_layer[layers[0]].drift for layers in chosen]
    assert whole - sum(removed) <= share * whole + 1e-9
    # Without the last group that was taken, too much drift would be left.
    if removed:
        assert whole - sum(removed[:-1]) > share * whole - 1e-9
    ratios = [by_layer[layers[0]].drift / by_layer[layers[0]].work_share for layers in chosen]
    assert ratios == sorted(ratios, reverse=True), "most drift for least work comes first"


@given(groups=GROUPS, share=st.floats(0.01, 0.99))
def test_less_drift_needs_more_layers(groups: list[LayerSensitivity], share: float) -> None:
    more, fewer = layers_to_keep(groups, share / 2), layers_to_keep(groups, share)
    assert more[: len(fewer)] == fewer


def test_work_counts() -> None:
    cheap, dear = group(0.4, 0.01, "cheap"), group(0.6, 0.99, "dear")
    assert layers_to_keep([dear, cheap], 0.7) == ("cheap",)
    assert layers_to_keep([dear, replace(cheap, work_share=0.99)], 0.7) == ("dear",)


def test_no_drift_keeps_nothing() -> None:
    assert layers_to_keep([group(0.0), group(0.0, 0.5, "other")], 0.5) == ()
    assert layers_to_keep([], 0.5) == ()


def test_one_group_is_kept_whole() -> None:
    assert layers_to_keep([group(0.1, 1.0, "q", "k", "v")], 0.5) == ("q", "k", "v")


# --------------------------------------------------------------------------- mixed recipes

SENSITIVITY = (
    group(0.3, 0.1, "a"),
    group(0.3, 0.1, "b.q", "b.k"),
    group(0.2, 0.15, "c"),
    group(0.2, 0.65, "d"),
)


def patterns(recipe: Recipe) -> list[str]:
    return [one.pattern for one in recipe.overrides]


def test_mixed_recipes_leave_what_costs_most_in_float() -> None:
    most, half, quarter = found = mixed_recipes(BASE, SENSITIVITY)
    assert [one.name for one in found] == [f"int8-static-{ending}" for ending in KEPT_DRIFT]
    assert patterns(most) == ["a"]
    assert patterns(half) == ["a", "b.q", "b.k"]
    assert patterns(quarter) == ["a", "b.q", "b.k", "c"]
    for recipe in found:
        assert {one.precision for one in recipe.overrides} == {"bfloat16"}
        assert replace(recipe, name=BASE.name, overrides=(), why=BASE.why) == BASE
    assert "the 3 layers that cause 50% of the drift stay in bfloat16" in half.why
    assert "the 4 layers that cause 75%" in quarter.why


def test_the_same_layers_make_one_recipe() -> None:
    steep = (group(0.9, 0.1, "a"), group(0.1, 0.9, "b"))
    assert [one.name for one in mixed_recipes(BASE, steep)] == ["int8-static-most"]
    own = replace(BASE, overrides=(LayerOverride(pattern="c", precision="bfloat16"),))
    (mixed,) = mixed_recipes(own, steep)
    assert patterns(mixed) == ["c", "a"], "a recipe's own overrides stay in front"


@pytest.mark.parametrize(
    "sensitivity",
    [
        (),
        (group(0.0), group(0.0, 0.5, "other")),
        (group(0.1, 1.0, "q", "k"),),
        (group(0.1, 0.5, "a"), group(0.1, 0.5, "b")),
    ],
    ids=["nothing", "no drift", "one group", "half of it is one of two"],
)
def test_all_or_nothing_is_no_mix(sensitivity: tuple[LayerSensitivity, ...]) -> None:
    found = mixed_recipes(BASE, sensitivity)
    everything = sum(len(one.layers) for one in sensitivity)
    assert all(0 < len(one.overrides) < everything for one in found)
    assert len(found) == (len(sensitivity) == 2 and sensitivity[0].drift > 0)


def test_the_endings_say_how_much_stays() -> None:
    assert KEPT_DRIFT == {"most": 0.75, "half": 0.5, "quarter": 0.25}


# -------------------------------------------------------------------------- what was asked

LINEARS = (linear("e.0.query"), linear("e.0.down", "y", ends_ffn=True), linear("e.1.query", "z"))


def over(pattern: str, precision: str) -> LayerOverride:
    return LayerOverride(pattern=pattern, precision=precision)


MIXED = replace(BASE, overrides=(over("e.0.query", "bfloat16"), over("e.0.down", "bfloat16")))


@pytest.mark.parametrize(
    ("asked", "left"),
    [
        ([over("*.query", "int8")], ["e.0.down", "*.query"]),
        ([over("ffn.down", "int8")], ["e.0.query", "ffn.down"]),
        ([over("e.1.*", "bfloat16")], ["e.0.query", "e.0.down", "e.1.*"]),
        ([over("*", "bfloat16"), over("e.0.query", "int8")], ["*", "e.0.query"]),
        ([], ["e.0.query", "e.0.down"]),
    ],
)
def test_the_user_s_pattern_beats_the_recipe_s_own(asked: list, left: list[str]) -> None:
    found = with_layer_precisions(MIXED, asked, LINEARS)
    assert patterns(found) == left
    assert found.overrides[len(left) - len(asked) :] == tuple(asked), "a later one wins"
    assert replace(found, overrides=MIXED.overrides) == MIXED


# ------------------------------------------------------------------------------- measuring


class FakeProbe:
    """Every layer in int8 turns the embedding by its own angle."""

    def __init__(self, **angles: float) -> None:
        self._angles = angles
        self.tried: list[list[str]] = []

    def embed(self, tokens: TokenSequences, plans: list[LayerPlan]) -> np.ndarray:
        self.tried.append([plan.layer.path for plan in plans])
        angle = sum(self._angles[plan.layer.path] for plan in plans)
        return np.tile([np.cos(angle), np.sin(angle)], (len(tokens), 1)).astype(np.float32)


def plan(layer: LinearLayer, size: int) -> LayerPlan:
    return LayerPlan(
        layer=layer,
        activation=Range(low=-1.0, high=1.0),
        integers="U8S8",
        symmetric=False,
        weight_integers=np.zeros((size, 10), np.int8),
        weight_scale=np.ones(10, np.float32),
    )


def test_one_group_at_a_time_is_measured() -> None:
    probe = FakeProbe(q=0.1, k=0.2, down=0.4, up=0.0)
    plans = [plan(linear("q"), 10), plan(linear("k"), 10), plan(linear("up", "y"), 20)]
    plans.append(plan(linear("down", "z"), 60))
    tokens = TokenSequences.from_lists([[1, 2], [3]], 0)
    reference = np.tile(np.array([1, 0], np.float32), (2, 1))
    counted: list[tuple[int, int | None]] = []
    found = measure_sensitivity(
        probe,  # type: ignore[arg-type]
        tokens,
        reference,
        plans,
        progress=lambda done, total=None: counted.append((done, total)),
    )
    assert probe.tried == [["q", "k"], ["up"], ["down"]]
    assert [one.layers for one in found] == [("q", "k"), ("up",), ("down",)]
    expected = [1 - np.cos(0.3), 0.0, 1 - np.cos(0.4)]
    np.testing.assert_allclose([one.drift for one in found], expected, atol=1e-7)
    assert all(one.drift >= 0 for one in found), "rounding of the cosine is no gain"
    assert [one.work_share for one in found] == [0.2, 0.2, 0.6]
    assert counted == [(1, 3), (2, 3), (3, 3)]


def test_drift_is_one_minus_the_mean_cosine() -> None:
    one = np.array([[1, 0], [0, 2], [1, 1]], np.float32)
    other = np.array([[3, 0], [1, 0], [-1, -1]], np.float32)
    assert drift(one, one) == pytest.approx(0, abs=1e-7)
    assert drift(one, other) == pytest.approx(1 - (1 + 0 - 1) / 3)


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_ruined_embeddings_drift_far(value: float) -> None:
    """A method that gives nothing must not win."""
    one = np.ones((3, 4), np.float32)
    assert drift(one, np.full((3, 4), value, np.float32)) >= 1.0
