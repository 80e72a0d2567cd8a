"""The choice among candidates."""

from __future__ import annotations

import pytest

from exporter.optimize.search import HEAT_MARGIN, choose, finalists, quality_reason, select_recipes
from exporter.values import CandidateResult, Estimate
from targets.contract import Check, Interval, Recipe
from targets.errors import ConfigError

FP32 = Recipe(name="float32", precision="float32", float_precision="float32", why="baseline")
BF16 = Recipe(name="bfloat16", precision="bfloat16", float_precision="bfloat16", why="amx")
INT8 = Recipe(
    name="int8", precision="int8", float_precision="bfloat16", quantizer="nncf_ptq", why="vnni"
)
ALL = (FP32, BF16, INT8)


def entry(recipe, status="eligible"):
    return CandidateResult(recipe=recipe, status=status, reason="was measured")


def speed(value):
    return Estimate(value=value, interval=Interval(low=value, high=value), num_samples=5)


def statuses(results):
    return {result.recipe.name: result.status for result in results}


def test_auto_takes_all():
    assert select_recipes(ALL, "auto") == ALL


def test_a_forced_float_runs_beside_the_baseline():
    assert select_recipes(ALL, "bfloat16") == (FP32, BF16)


def test_a_forced_int8_also_meets_the_best_float():
    assert select_recipes(ALL, "int8") == (FP32, BF16, INT8)


def test_the_forced_baseline_runs_alone():
    assert select_recipes(ALL, "float32") == (FP32,)


def test_an_unknown_recipe_lists_those_there_are():
    with pytest.raises(ConfigError) as raised:
        select_recipes(ALL, "int4")
    assert "float32, bfloat16, int8" in raised.value.why


def test_the_fastest_eligible_is_chosen():
    results = [entry(recipe) for recipe in ALL]
    settled = choose(results, {"bfloat16": speed(2.0), "int8": speed(3.0)}, None)
    assert statuses(settled)["int8"] == "chosen"
    assert "2.00x" in settled[1].reason and "3.00x" in settled[1].reason


def test_a_faster_one_that_lost_quality_is_not_chosen():
    results = [entry(FP32), entry(BF16), entry(INT8, "dropped")]
    settled = choose(results, {"bfloat16": speed(2.0), "int8": speed(3.0)}, None)
    assert statuses(settled) == {"float32": "eligible", "bfloat16": "chosen", "int8": "dropped"}
    assert settled[2].reason == "was measured"


def test_slower_than_the_baseline_means_the_baseline():
    results = [entry(recipe) for recipe in ALL]
    settled = choose(results, {"bfloat16": speed(0.9), "int8": speed(0.5)}, None)
    assert statuses(settled)["float32"] == "chosen"


def test_a_forced_recipe_is_chosen_whatever_it_measures():
    settled = choose([entry(FP32), entry(INT8, "dropped")], {}, "int8")
    assert statuses(settled)["int8"] == "chosen"


def test_who_lost_in_the_heat_does_not_win_on_the_heat_s_figures():
    results = [entry(recipe) for recipe in ALL]
    speedups = {"bfloat16": speed(2.0), "int8": speed(2.1)}
    assert statuses(choose(results, speedups, None, {"int8"}))["bfloat16"] == "chosen"


def check(verdict, value=0.9, interval=None):
    return Check(
        name="overlap@10",
        verdict=verdict,
        value=value,
        threshold=0.95,
        interval=interval,
        reason="few queries",
    )


def test_quality_needs_every_check():
    assert quality_reason([check("pass"), check("pass")]) is None


@pytest.mark.parametrize("verdict", ["fail", "inconclusive", "not_run"])
def test_what_is_not_passed_is_the_reason(verdict):
    why = quality_reason([check("pass"), check(verdict, interval=Interval(low=0.89, high=0.92))])
    assert why is not None
    assert why == f"overlap@10 0.9000 [0.8900, 0.9200] against 0.95: {verdict}"


def test_a_check_without_a_figure_gives_its_own_reason():
    assert quality_reason([check("not_run", value=None)]) == "overlap@10: few queries"


def test_the_heat_keeps_who_may_yet_win():
    bar = 3.0 * (1 - HEAT_MARGIN)
    heat = {"a": speed(1.0), "b": speed(3.0), "c": speed(bar + 0.01), "d": speed(bar - 0.01)}
    assert finalists(heat) == ("b", "c")


def test_the_final_is_small():
    assert finalists({name: speed(2.0) for name in "abcde"}) == ("a", "b")


def test_nobody_ran():
    assert finalists({}) == ()
