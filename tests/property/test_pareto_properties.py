"""What is true of every Pareto front."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from exporter.optimize.pareto import Point, dominates, dominators

few = st.sampled_from([0.5, 0.9, 0.95, 1.0])  # few values, so that ties are common


@st.composite
def crowds(draw) -> list[Point]:
    figures = draw(st.lists(st.tuples(st.sampled_from([0.5, 1.0, 2.0, 3.0]), few, few), max_size=9))
    return [
        Point(name=f"p{i}", speedup=speed, overlap=overlap, mean_cosine=cosine)
        for i, (speed, overlap, cosine) in enumerate(figures)
    ]


def front_of(points: list[Point]) -> set[str]:
    return {name for name, by in dominators(points).items() if by is None}


@given(crowds())
def test_no_member_is_dominated_and_everybody_else_is_by_a_member(points):
    by_name = {point.name: point for point in points}
    front = front_of(points)
    for point in points:
        dominated = any(dominates(other, point) for other in points)
        assert (point.name in front) is not dominated
    for name, by in dominators(points).items():
        if by is not None:
            assert by in front
            assert dominates(by_name[by], by_name[name])


@given(crowds(), st.data())
def test_a_dominated_point_more_changes_nothing(points, data):
    if not points:
        return
    better = data.draw(st.sampled_from(points))
    worse = Point(
        name="worse",
        speedup=better.speedup * data.draw(st.sampled_from([0.5, 1.0])),
        overlap=better.overlap,
        mean_cosine=better.mean_cosine - 0.1,
    )
    assert front_of([*points, worse]) == front_of(points)


@given(crowds())
def test_there_is_a_front_and_the_order_does_not_matter(points):
    assert bool(front_of(points)) == bool(points)
    assert front_of(points[::-1]) == front_of(points)


@given(crowds(), crowds())
def test_domination_is_a_strict_order(some, others):
    for a in some:
        assert not dominates(a, a)
        for b in others:
            assert not (dominates(a, b) and dominates(b, a))
            for c in some:
                if dominates(a, b) and dominates(b, c):
                    assert dominates(a, c)
