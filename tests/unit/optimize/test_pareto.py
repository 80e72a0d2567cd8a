"""The Pareto front as the report shows it."""

from __future__ import annotations

from types import SimpleNamespace

from exporter.optimize.pareto import Point, dominates, dominators, mark_front
from exporter.values import CandidateResult
from targets.contract import Recipe


def point(name: str, speedup: float, overlap: float, cosine: float = 0.99) -> Point:
    return Point(name=name, speedup=speedup, overlap=overlap, mean_cosine=cosine)


def candidate(name: str, overlap: float | None, status: str = "eligible") -> CandidateResult:
    recipe = Recipe(name=name, precision="int8", float_precision="float32", why="-")
    fidelity = SimpleNamespace(
        overlap_at_k=None if overlap is None else SimpleNamespace(value=overlap),
        mean_cosine=SimpleNamespace(value=0.99),
    )
    return CandidateResult(recipe=recipe, status=status, reason="so", fidelity=fidelity)


def test_faster_and_closer_dominates():
    assert dominates(point("a", 2.0, 0.99), point("b", 1.0, 0.9))
    assert not dominates(point("b", 1.0, 0.9), point("a", 2.0, 0.99))


def test_a_trade_off_dominates_nobody():
    fast, close = point("fast", 3.0, 0.9), point("close", 1.0, 1.0)
    assert not dominates(fast, close)
    assert not dominates(close, fast)


def test_equals_do_not_dominate_each_other():
    assert not dominates(point("a", 2.0, 0.9), point("b", 2.0, 0.9))


def test_the_mean_cosine_tells_equal_overlaps_apart_and_nothing_else():
    assert dominates(point("a", 2.0, 0.9, 0.999), point("b", 2.0, 0.9, 0.99))
    assert not dominates(point("a", 2.0, 0.8, 0.999), point("b", 2.0, 0.9, 0.99))


def test_the_closest_member_of_the_front_is_named():
    points = [point("close", 2.0, 0.99), point("fast", 3.0, 0.95), point("x", 1.5, 0.9)]
    assert dominators(points) == {"close": None, "fast": None, "x": "close"}


def test_who_is_dominated_says_by_whom_and_the_front_is_marked():
    results = [candidate("a", 1.0), candidate("b", 0.9, "dropped"), candidate("c", 0.8)]
    marked = mark_front(results, {"a": 2.0, "b": 3.0, "c": 1.0})
    assert [r.on_front for r in marked] == [True, True, False]
    assert [r.reason for r in marked[:2]] == ["so", "so"]
    assert marked[2].reason == "so; dominated by a: at least as fast and as close to FP32"


def test_who_was_not_judged_or_not_timed_takes_no_part():
    unjudged = CandidateResult(recipe=candidate("u", 1.0).recipe, status="dropped", reason="so")
    untimed = candidate("t", 1.0)
    judged = candidate("j", 0.5)
    marked = mark_front([unjudged, untimed, judged], {"u": 9.0, "j": 1.0})
    assert [r.on_front for r in marked] == [False, False, True]
    assert {r.reason for r in marked} == {"so"}


def test_without_overlap_the_cosine_decides():
    results = [candidate("a", None), candidate("b", None)]
    marked = mark_front(results, {"a": 2.0, "b": 1.0})
    assert [r.on_front for r in marked] == [True, False]
