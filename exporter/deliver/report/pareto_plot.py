"""Speed against closeness to FP32, one point for each recipe that was judged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from exporter.deliver.report import svg
from exporter.deliver.report.document import CandidateSection, Report, TargetSection
from exporter.deliver.report.figures import cosine, percent, ratio, speedup_of
from exporter.deliver.report.headline import mix_names
from exporter.deliver.report.label_layout import Box, place_labels
from exporter.deliver.report.text import shorten_middle, visible

_WIDTH_PX, _HEIGHT_PX = 860, 520
_AREA = Box(left=96.0, top=118.0, right=836.0, bottom=452.0)
_MARK_PX = 6.0
_LABEL_HEIGHT_PX = 16.0
_MAX_LABEL_CHARS = 32
_LEADER_FROM_PX = 12.0
"""A label that is farther from its point than this gets a line to it."""
_DECIDING = {"latency": "mix-single", "throughput": "mix-batched"}
"""The mix that alone decides for an objective, where it was timed; else all mixes do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParetoPoint:
    """One judged recipe; `closeness` is overlap@k where all have it, else the mean cosine."""

    name: str
    speedup: float
    closeness: float
    status: str
    on_front: bool


def pareto_points(report: Report, target: TargetSection) -> tuple[ParetoPoint, ...]:
    """Return the recipes of which both figures are known; none if that leaves less than two."""
    mixes = deciding_mixes(report, target)
    speeds = {
        i: speed
        for i, one in enumerate(target.candidates)
        if one.fidelity and (speed := _speedup(one, mixes)) is not None
    }
    by_overlap = has_overlap(target)
    points = tuple(
        ParetoPoint(
            name=target.candidates[i].recipe.name,
            speedup=speed,
            closeness=_closeness(target.candidates[i], by_overlap),
            status=target.candidates[i].status,
            on_front=target.candidates[i].on_front,
        )
        for i, speed in speeds.items()
    )
    return points if len(points) > 1 else ()


def deciding_mixes(report: Report, target: TargetSection) -> tuple[str, ...]:
    """Name the mixes that the choice was made on."""
    timed = mix_names([candidate.latency for candidate in target.candidates])
    wanted = _DECIDING.get(report.provenance.settings.get("objective", ""))
    return (wanted,) if wanted in timed and wanted is not None else tuple(timed)


def has_overlap(target: TargetSection) -> bool:
    """Say whether the overlap of neighbours was taken of every judged candidate."""
    judged = [one.fidelity for one in target.candidates if one.fidelity]
    return bool(judged) and all(fidelity.overlap_at_k for fidelity in judged)


def _speedup(candidate: CandidateSection, mixes: Sequence[str]) -> float | None:
    """Return the geometric mean over the mixes; None unless all were timed."""
    if not mixes or not candidate.latency:
        return None
    found = [speedup_of(candidate.latency, mix) for mix in mixes]
    known = [value for value in found if value is not None and value > 0.0]
    if len(known) == len(found):
        return math.exp(sum(math.log(value) for value in known) / len(known))
    return 1.0 if candidate.recipe.precision == "float32" else None


def _closeness(candidate: CandidateSection, by_overlap: bool) -> float:
    fidelity = candidate.fidelity
    if fidelity is None:
        raise ValueError(f"{candidate.recipe.name} was not judged")
    overlap = fidelity.overlap_at_k
    return overlap.value if by_overlap and overlap else fidelity.mean_cosine.value


# ----------------------------------------------------------------------------- drawing


@dataclass(frozen=True, slots=True)
class _Scale:
    """From figures to px: linear, with a margin so that no mark touches an axis."""

    low: float
    high: float
    start_px: float
    end_px: float

    @classmethod
    def over(cls, values: Sequence[float], start_px: float, end_px: float) -> _Scale:
        low, high = min(values), max(values)
        # Equal figures still need a span, one that their own digits can be told apart on.
        margin = (high - low) * 0.12 or abs(high) * 0.01 or 0.01
        return cls(low - margin, high + margin, start_px, end_px)

    def px(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start_px + share * (self.end_px - self.start_px)


def draw_pareto(report: Report, target: TargetSection, points: Sequence[ParetoPoint]) -> str:
    """Draw recipes as points: the faster the more to the right, the closer the higher."""
    by_overlap = has_overlap(target)
    factor = 100.0 if by_overlap else 1.0
    across = _Scale.over([one.speedup for one in points], _AREA.left, _AREA.right)
    up = _Scale.over([one.closeness * factor for one in points], _AREA.bottom, _AREA.top)
    at = [(across.px(one.speedup), up.px(one.closeness * factor)) for one in points]
    front = _front_line([xy for one, xy in zip(points, at, strict=True) if one.on_front])
    parts = [
        *_heading(target, len(points)),
        *_across_axis(across, f"speed-up over FP32 (×), {_mixes_in_words(report, target)}"),
        *_up_axis(up, _closeness_title(target), most=factor),
    ]
    if len(front) > 1:
        parts.append(svg.path(front, "front"))
    parts += [_labels(points, at, front)]
    parts += [_mark(*xy, one.on_front, one.status) for one, xy in zip(points, at, strict=True)]
    title = f"Speed and closeness to FP32: {target.target} on {target.device}"
    return svg.document(title, _words(points, by_overlap), _WIDTH_PX, _HEIGHT_PX, parts)


def _heading(target: TargetSection, num_points: int) -> list[str]:
    place = shorten_middle(visible(f"{target.target} on {target.device}"), 50)
    left_out = len(target.candidates) - num_points
    missing = f"; {left_out} not judged, not shown" if left_out else ""
    marks = (
        (24, True, "eligible", "on the Pareto front"),
        (218, False, "eligible", "dominated"),
        (342, False, "dropped", "hollow: dropped, may not be chosen"),
    )
    parts = [
        svg.text(16, 26, "Speed and closeness to FP32", "title"),
        svg.text(16, 46, f"{place}; development split{missing}", "faint"),
    ]
    for x, on_front, status, meaning in marks:
        parts += [_mark(x, 70, on_front, status), svg.text(x + 14, 74, meaning)]
    return parts


def _mark(x: float, y: float, on_front: bool, status: str) -> str:
    """Draw a diamond on the front and a circle elsewhere, hollow where it was dropped."""
    kind = "mark hollow" if status in ("dropped", "failed") else "mark"
    if not on_front:
        return svg.circle(x, y, _MARK_PX - 1.0, kind)
    r = _MARK_PX + 1.0
    return svg.path([(x, y - r), (x + r, y), (x, y + r), (x - r, y)], kind, closed=True)


def _front_line(at: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the border of what the front dominates, as steps from left to right."""
    corners: list[tuple[float, float]] = []
    for x, y in sorted(at):
        if corners:
            corners.append((corners[-1][0], y))
        corners.append((x, y))
    return corners


def _labels(
    points: Sequence[ParetoPoint],
    at: Sequence[tuple[float, float]],
    front: Sequence[tuple[float, float]],
) -> str:
    words = [_label(one) for one in points]
    marks = [
        Box(left=x - _MARK_PX, top=y - _MARK_PX, right=x + _MARK_PX, bottom=y + _MARK_PX)
        for x, y in at
    ]
    boxes = place_labels(
        at,
        [(svg.text_width(label) + 6.0, _LABEL_HEIGHT_PX) for label in words],
        marks,
        list(pairwise(front)),
        _AREA,
    )
    parts = []
    for label, point, box, xy in zip(words, points, boxes, at, strict=True):
        end = box.nearest(xy)
        if math.dist(xy, end) > _LEADER_FROM_PX:
            parts.append(svg.line(*xy, *end, "leader"))
        kind = "strong" if point.status == "chosen" else "ink"
        parts.append(svg.text((box.left + box.right) / 2, box.bottom - 4, label, kind, "middle"))
    return "\n".join(parts)


def _label(point: ParetoPoint) -> str:
    label = shorten_middle(visible(point.name), _MAX_LABEL_CHARS)
    return f"{label} (chosen)" if point.status == "chosen" else label


def _across_axis(scale: _Scale, title: str) -> list[str]:
    parts = []
    values, decimals = svg.ticks(scale.low, scale.high, 7)
    for value in values:
        x = scale.px(value)
        parts.append(svg.line(x, _AREA.top, x, _AREA.bottom, "thin"))
        parts.append(svg.text(x, _AREA.bottom + 18, f"{value:.{decimals}f}", "faint", "middle"))
    parts.append(svg.line(_AREA.left, _AREA.bottom, _AREA.right, _AREA.bottom, "axis"))
    middle = (_AREA.left + _AREA.right) / 2
    parts.append(svg.text(middle, _AREA.bottom + 44, title, "ink", "middle"))
    return parts


def _up_axis(scale: _Scale, title: str, most: float) -> list[str]:
    """Draw the axis of closeness, its name on top; no tick lies above what can be."""
    parts = []
    values, decimals = svg.ticks(scale.low, min(scale.high, most))
    for value in values:
        y = scale.px(value)
        parts.append(svg.line(_AREA.left, y, _AREA.right, y, "thin"))
        parts.append(svg.text(_AREA.left - 8, y + 4, f"{value:.{decimals}f}", "faint", "end"))
    parts.append(svg.line(_AREA.left, _AREA.top, _AREA.left, _AREA.bottom, "axis"))
    parts.append(svg.text(16, _AREA.top - 14, title))
    return parts


# ------------------------------------------------------------------------------- words


def _closeness_title(target: TargetSection) -> str:
    if not has_overlap(target):
        return "mean cosine with FP32"
    k = next(one.fidelity.k for one in target.candidates if one.fidelity)
    return f"overlap@{k}: FP32's own {k} nearest neighbours kept (%)"


def _mixes_in_words(report: Report, target: TargetSection) -> str:
    mixes = deciding_mixes(report, target)
    names = " and ".join(shorten_middle(mix, 24) for mix in mixes)
    return f"geometric mean of {names}" if len(mixes) > 1 else names


def _words(points: Sequence[ParetoPoint], by_overlap: bool) -> str:
    write, what = (percent, "overlap") if by_overlap else (cosine, "mean cosine")
    said = "; ".join(
        f"{shorten_middle(visible(one.name), _MAX_LABEL_CHARS)}: {ratio(one.speedup)}, {what} "
        f"{write(one.closeness)}, {one.status}{', on the Pareto front' if one.on_front else ''}"
        for one in points
    )
    return f"Points of {len(points)} recipes, speed-up over FP32 against {what}. {said}."
