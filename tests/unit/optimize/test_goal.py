"""Who leads, who is out and who is in the final, by what the choice is for."""

from __future__ import annotations

import pytest

from exporter.optimize.goal import (
    FLOAT_MARGIN,
    FLOAT_TIE,
    HEAT_MARGIN,
    SLOWER_THAN_FP32,
    TIE,
    Entrant,
    Goal,
)

MIXES = ("mix-single", "mix-batched")
FASTEST = Goal()
SMALLEST = Goal(objective="size")


def entrant(name: str, speedup: float, size_mb: float = 1.0, overlap: float = 0.0) -> Entrant:
    return Entrant(
        name=name,
        speedup=speedup,
        size_bytes=int(size_mb * 1e6),
        closeness=(overlap, 0.0),
        is_float=name in ("float32", "bfloat16"),
    )


def names(entrants) -> list[str]:
    return [one.name for one in entrants]


@pytest.mark.parametrize(
    ("objective", "timed", "mixes"),
    [
        ("balanced", MIXES, MIXES),
        ("latency", MIXES, ("mix-single",)),
        ("throughput", MIXES, ("mix-batched",)),
        ("size", MIXES, MIXES),
        ("latency", ("mix-batched",), ("mix-batched",)),
        ("throughput", ("mix-single",), ("mix-single",)),
    ],
)
def test_the_objective_s_mix_decides_where_it_was_timed(objective, timed, mixes):
    assert Goal.of(objective, 1.0, timed).mixes == mixes


def test_the_fastest_ranks_first():
    ranked = FASTEST.ranked([entrant("a", 1.0), entrant("b", 3.0), entrant("c", 2.0)])
    assert names(ranked) == ["b", "c", "a"]


def test_the_smallest_that_is_fast_enough_ranks_first():
    crowd = [
        entrant("float32", 1.0, 90),
        entrant("fast", 3.0, 45),
        entrant("small", 1.2, 23),
        entrant("tiny but slow", 0.99, 6),
    ]
    assert names(SMALLEST.ranked(crowd)) == ["small", "fast", "float32", "tiny but slow"]
    strict = Goal(objective="size", min_speedup=2.0)
    assert names(strict.ranked(crowd)) == ["fast", "small", "float32", "tiny but slow"]


# ----------------------------------------------------------------------------- the heat


def test_who_cannot_catch_up_is_beaten_by_name():
    leader = entrant("bfloat16", 3.0)
    bar = 3.0 * (1 - HEAT_MARGIN)
    assert FASTEST.why_beaten(entrant("x", bar + 0.01), leader) is None
    why = FASTEST.why_beaten(entrant("x", bar - 0.01), leader)
    assert why is not None
    assert "bfloat16 (3.00x)" in why


def test_much_slower_than_fp32_is_out_without_a_leader():
    assert FASTEST.why_beaten(entrant("x", SLOWER_THAN_FP32 + 0.01), None) is None
    assert "against FP32" in (FASTEST.why_beaten(entrant("x", SLOWER_THAN_FP32 - 0.01), None) or "")


def test_what_did_not_run_is_not_called_slow():
    assert FASTEST.why_beaten(entrant("x", 0.0), entrant("y", 3.0)) is None


def test_for_the_size_a_slower_one_may_win_and_a_larger_one_may_not():
    leader = entrant("small", 2.0, 23)
    assert SMALLEST.why_beaten(entrant("smaller", 1.1, 20), leader) is None
    why = SMALLEST.why_beaten(entrant("larger", 9.0, 45), leader)
    assert why is not None
    assert "45.0 MB is not smaller than small (23.0 MB)" in why
    assert "cannot win against FP32" in (SMALLEST.why_beaten(entrant("s", 0.5, 1), leader) or "")


def test_for_the_size_only_who_is_surely_fast_enough_leads():
    unsure, sure = entrant("unsure", 1.1, 10), entrant("sure", 2.0, 23)
    assert SMALLEST.leader(unsure, None) is None
    assert SMALLEST.leader(sure, None) is sure
    assert SMALLEST.leader(entrant("larger", 2.0, 45), sure) is sure
    assert FASTEST.leader(unsure, None) is unsure
    assert FASTEST.leader(unsure, sure) is sure


# ---------------------------------------------------------------------------- the final


def test_the_heat_keeps_who_may_yet_win():
    bar = 3.0 * (1 - HEAT_MARGIN)
    heat = [
        entrant("a", 1.0),
        entrant("b", 3.0),
        entrant("c", bar + 0.01),
        entrant("d", bar - 0.01),
    ]
    assert FASTEST.finalists(heat) == ("b", "c")


def test_the_final_is_small():
    assert FASTEST.finalists([entrant(name, 2.0) for name in "abcde"]) == ("a", "b")


def test_the_closest_and_the_fastest_float_come_to_the_final_besides():
    heat = [
        entrant("int8", 3.0, overlap=0.95),
        entrant("static", 2.9, overlap=0.96),
        entrant("quarter", 2.7, overlap=0.98),
        entrant("half", 2.8, overlap=0.97),
        entrant("bfloat16", 2.6, overlap=0.97),
        entrant("float32", 1.0, overlap=1.0),
    ]
    assert FASTEST.finalists(heat) == ("int8", "static", "quarter", "bfloat16")


def test_a_float_stays_in_the_race_with_int8_unless_it_is_far_behind():
    """What int8 must be proven faster than is not left out by a heat of two rounds."""
    int8, bar = entrant("int8", 3.0), 3.0 * (1 - FLOAT_MARGIN)
    near, far = entrant("bfloat16", bar + 0.01), entrant("bfloat16", bar - 0.01)
    assert FASTEST.why_beaten(near, int8) is None
    assert "against int8 (3.00x)" in (FASTEST.why_beaten(far, int8) or "")
    assert FASTEST.why_beaten(entrant("bfloat16", bar + 0.01), entrant("float32", 3.0)) is not None
    assert FASTEST.why_beaten(entrant("static", bar + 0.01), int8) is not None
    assert FASTEST.finalists([int8, near]) == ("int8", "bfloat16")
    assert FASTEST.finalists([int8, far]) == ("int8",)


def test_a_tie_goes_to_the_one_closer_to_fp32():
    level, behind = 3.0 * (1 - TIE) + 0.01, 3.0 * (1 - TIE) - 0.01
    fast, near = entrant("static", 3.0, overlap=0.96), entrant("most", level, overlap=0.97)
    assert FASTEST.winner([fast, near]) is near
    assert FASTEST.praise_of("most", [fast, near]) == (
        "as fast as static within 5%, and closer to FP32"
    )
    assert "not clearly more than most (2.86x), which is closer" in FASTEST.comparison(fast, near)
    assert FASTEST.winner([fast, entrant("most", behind, overlap=0.97)]) is fast
    assert FASTEST.winner([fast, entrant("worse", level, overlap=0.95)]) is fast


def test_int8_must_be_clearly_faster_than_float():
    level, behind = 3.0 * (1 - FLOAT_TIE) + 0.01, 3.0 * (1 - FLOAT_TIE) - 0.01
    int8, near = entrant("int8", 3.0, overlap=0.96), entrant("bfloat16", level, overlap=0.99)
    assert FASTEST.winner([int8, near]) is near
    assert FASTEST.praise_of("bfloat16", [int8, near]) == (
        "as fast as int8 within 10%, and closer to FP32"
    )
    assert FASTEST.winner([int8, entrant("bfloat16", behind, overlap=0.99)]) is int8
    assert FASTEST.winner([int8, entrant("static", level, overlap=0.99)]) is int8


def test_for_the_size_a_tie_in_speed_decides_nothing():
    small, near = entrant("small", 3.0, 23, overlap=0.96), entrant("near", 3.0, 45, overlap=0.99)
    assert SMALLEST.winner([near, small]) is small


def test_nobody_ran():
    assert FASTEST.finalists([]) == ()
    assert SMALLEST.finalists([]) == ()


def test_the_final_of_the_smallest_has_one_that_is_surely_fast_enough():
    heat = [
        entrant("a", 0.95, 10),
        entrant("b", 0.96, 11),
        entrant("c", 1.1, 12),
        entrant("d", 2.0, 23),
        entrant("e", 3.0, 45),
        entrant("too slow", 0.5, 1),
    ]
    assert SMALLEST.finalists(heat) == ("a", "b", "d")
    assert SMALLEST.finalists([*heat[:3], heat[-1]]) == ("a", "b", "c")  # nobody is sure


def test_a_comparison_says_what_decided():
    a, b = entrant("a", 1.5, 23), entrant("b", 2.0, 45)
    assert FASTEST.comparison(a, b) == "1.50x FP32 on the mixes, b 2.00x"
    single = Goal.of("latency", 1.0, MIXES)
    assert single.comparison(a, b) == "1.50x FP32 on mix-single, b 2.00x"
    assert SMALLEST.comparison(b, a) == "45.0 MB at 2.00x FP32, a 23.0 MB at 1.50x"
