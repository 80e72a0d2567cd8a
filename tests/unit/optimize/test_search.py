"""The choice among candidates."""

from __future__ import annotations

from dataclasses import replace

import pytest

from exporter.optimize.goal import Goal
from exporter.optimize.search import (
    always_tried,
    by_promise,
    choose,
    quality_reason,
    select_recipes,
)
from exporter.values import OBJECTIVES, CandidateResult, Estimate
from targets.contract import Check, Interval, Recipe
from targets.errors import ConfigError

FP32 = Recipe(name="float32", precision="float32", float_precision="float32", why="baseline")
BF16 = Recipe(name="bfloat16", precision="bfloat16", float_precision="bfloat16", why="amx")
INT8 = Recipe(
    name="int8", precision="int8", float_precision="bfloat16", quantizer="nncf_ptq", why="vnni"
)
ALL = (FP32, BF16, INT8)
SMALLEST = Goal(objective="size")


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


def test_what_is_too_large_says_its_sizes():
    size = Check(
        name="size", verdict="fail", value=9.0, threshold=8.0, unit="bytes", reason="9 bytes > 8"
    )
    assert quality_reason([size]) == "size: 9 bytes > 8"


# --------------------------------------------------------------------------- objectives


def sized(recipe, size_bytes, status="eligible"):
    return replace(entry(recipe, status), size_bytes=size_bytes)


SIZES = (sized(FP32, 90), sized(BF16, 45), sized(INT8, 23))


def test_for_the_size_the_smallest_is_chosen_though_another_is_faster():
    speedups = {"bfloat16": speed(3.0), "int8": speed(1.1)}
    assert statuses(choose(SIZES, speedups, None, goal=SMALLEST))["int8"] == "chosen"
    assert statuses(choose(SIZES, speedups, None))["bfloat16"] == "chosen"


def test_for_the_size_nothing_slower_than_fp32_is_chosen():
    speedups = {"bfloat16": speed(1.2), "int8": speed(0.97)}
    assert statuses(choose(SIZES, speedups, None, goal=SMALLEST))["bfloat16"] == "chosen"


def test_for_the_size_nothing_that_lost_quality_is_chosen():
    results = (*SIZES[:2], sized(INT8, 23, "dropped"))
    speedups = {"bfloat16": speed(1.2), "int8": speed(2.0)}
    assert statuses(choose(results, speedups, None, goal=SMALLEST))["bfloat16"] == "chosen"


def test_the_reason_names_the_objective():
    speedups = {"bfloat16": speed(3.0), "int8": speed(1.1)}
    reasons = {
        objective: next(
            result.reason
            for result in choose(SIZES, speedups, None, goal=Goal(objective=objective))
            if result.status == "chosen"
        )
        for objective in OBJECTIVES
    }
    assert len(set(reasons.values())) == len(OBJECTIVES)
    assert all("promised quality" in reason for reason in reasons.values())


# ------------------------------------------------------------------- order of promise


def test_baseline_and_the_first_int8_are_always_tried():
    weights = replace(INT8, name="int8-weights")
    assert always_tried((*ALL, weights)) == {"float32", "int8"}
    assert always_tried(ALL[:2]) == {"float32"}


def test_what_is_always_tried_comes_first_the_rest_as_the_target_says():
    mixed, weights = (replace(INT8, name=name) for name in ("int8-mixed", "int8-weights"))
    order = by_promise((FP32, BF16, INT8, mixed, weights))
    assert [r.name for r in order] == ["float32", "int8", "bfloat16", "int8-mixed", "int8-weights"]
