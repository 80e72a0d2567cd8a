"""Where labels of points go, so that they cover neither each other, points nor axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float]

_NEAR_PX = (9.0, 18.0)
"""Distances around a point; where these are taken, columns on either side have more room."""
_COLUMNS_PX = (16.0, 32.0, 52.0, 76.0, 110.0)
_ROWS_PX = tuple(18.0 * i for i in range(-10, 11))
_ANGLES = tuple(math.tau * i / 16 for i in range(16))
_STEP_PX = 5.0
"""Distance of the points that stand for a line; less than half the height of a label."""
_MAX_PASSES = 6
_COST_OF_COVERING = 1000.0
"""For each px² of a label or mark; a label's distance in px costs 1 each."""
_COST_OF_STRIKING, _COST_OF_CROSSING, _COST_OF_TOUCHING = 400.0, 300.0, 30.0
"""A leader through a label; leaders through each other; a line behind a label or a mark."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A rectangle in px, y pointing down."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """Return the common area in px²."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(width, 0.0) * max(height, 0.0)

    def holds(self, point: Point) -> bool:
        """Say whether a point lies inside."""
        return self.left < point[0] < self.right and self.top < point[1] < self.bottom

    def nearest(self, point: Point) -> Point:
        """Return the point of the box that is nearest to another."""
        x = min(max(point[0], self.left), self.right)
        return x, min(max(point[1], self.top), self.bottom)

    @property
    def area(self) -> float:
        """Area in px²."""
        return (self.right - self.left) * (self.bottom - self.top)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Placed:
    """A label's place and the line that leads to it from its point."""

    box: Box
    point: Point
    length: float
    samples: tuple[Point, ...]

    @classmethod
    def at(cls, box: Box, point: Point) -> _Placed:
        end = box.nearest(point)
        samples = tuple(_samples(point, end)[1:-1])
        return cls(box=box, point=point, length=math.dist(point, end), samples=samples)

    @property
    def end(self) -> Point:
        return self.box.nearest(self.point)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ground:
    """What lies there before any label."""

    marks: Sequence[Box]
    line_samples: Sequence[Point]
    area: Box

    def cost(self, one: _Placed) -> float:
        box = one.box
        covered = sum(box.overlap(mark) for mark in self.marks)
        outside = box.area - box.overlap(self.area)
        touched = int(any(box.holds(sample) for sample in self.line_samples))
        touched += sum(any(mark.holds(s) for s in one.samples) for mark in self.marks)
        return one.length + _COST_OF_COVERING * (covered + outside) + _COST_OF_TOUCHING * touched


def place_labels(
    points: Sequence[Point],
    sizes: Sequence[tuple[float, float]],
    marks: Sequence[Box],
    lines: Sequence[tuple[Point, Point]],
    area: Box,
) -> list[Box]:
    """Find a place for each label: as near as it can be without covering anything.

    Each label in turn takes its cheapest place, given where the others are, until none moves.

    Args:
        points: what is labelled.
        sizes: width and height of each label.
        marks: what no label may cover: the points' own marks.
        lines: what labels should not cover if there is room elsewhere.
        area: where labels may be.

    Returns:
        The place of each label. Where there is no room at all, the one that covers least.
    """
    samples = [sample for one in lines for sample in _samples(*one)]
    ground = _Ground(marks=marks, line_samples=samples, area=area)
    choices = [
        _by_cost(_places(point, size), ground) for point, size in zip(points, sizes, strict=True)
    ]
    placed: dict[int, _Placed] = {}
    for _ in range(_MAX_PASSES):
        before = dict(placed)
        for i, places in enumerate(choices):
            others = [one for j, one in placed.items() if j != i]
            placed[i] = _cheapest(places, others)
        if placed == before:
            break
    return [placed[i].box for i in range(len(points))]


def _by_cost(places: Sequence[_Placed], ground: _Ground) -> list[tuple[float, _Placed]]:
    return sorted(((ground.cost(one), one) for one in places), key=lambda pair: pair[0])


def _cheapest(places: Sequence[tuple[float, _Placed]], others: Sequence[_Placed]) -> _Placed:
    best, best_cost = places[0][1], math.inf
    for own_cost, one in places:
        if own_cost >= best_cost:
            break  # those that follow cost as much by themselves
        cost = own_cost + sum(_cost_between(one, other) for other in others)
        if cost < best_cost:
            best, best_cost = one, cost
    return best


def _cost_between(one: _Placed, other: _Placed) -> float:
    strikes = int(any(one.box.holds(sample) for sample in other.samples))
    strikes += int(any(other.box.holds(sample) for sample in one.samples))
    return (
        _COST_OF_COVERING * one.box.overlap(other.box)
        + _COST_OF_STRIKING * strikes
        + _COST_OF_CROSSING * _cross(one.point, one.end, other.point, other.end)
    )


def _cross(a: Point, b: Point, c: Point, d: Point) -> bool:
    """Say whether the lines a-b and c-d cross."""
    return _side(a, b, c) * _side(a, b, d) < 0 and _side(c, d, a) * _side(c, d, b) < 0


def _side(a: Point, b: Point, c: Point) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _places(point: Point, size: tuple[float, float]) -> list[_Placed]:
    near = [_around(point, size, angle, distance) for distance in _NEAR_PX for angle in _ANGLES]
    aside = [
        _beside(point, size, side * across, down)
        for across in _COLUMNS_PX
        for down in _ROWS_PX
        for side in (1.0, -1.0)
    ]
    return [_Placed.at(box, point) for box in (*near, *aside)]


def _around(point: Point, size: tuple[float, float], angle: float, distance: float) -> Box:
    """Put a box so that its edge, not its middle, is `distance` away in a direction."""
    (width, height), across, down = size, math.cos(angle), math.sin(angle)
    x = point[0] + across * (distance + width / 2)
    y = point[1] + down * (distance + height / 2)
    return Box(left=x - width / 2, top=y - height / 2, right=x + width / 2, bottom=y + height / 2)


def _beside(point: Point, size: tuple[float, float], across: float, down: float) -> Box:
    """Put a box wholly to the right (`across` > 0) or left of a point, `down` px below it."""
    width, height = size
    left = point[0] + across if across > 0.0 else point[0] + across - width
    top = point[1] + down - height / 2
    return Box(left=left, top=top, right=left + width, bottom=top + height)


def _samples(start: Point, end: Point) -> list[Point]:
    count = max(1, math.ceil(math.dist(start, end) / _STEP_PX))
    return [
        (
            start[0] + (end[0] - start[0]) * i / count,
            start[1] + (end[1] - start[1]) * i / count,
        )
        for i in range(count + 1)
    ]
