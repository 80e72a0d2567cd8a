"""The curve of a training: drift of held-out texts by steps."""

from __future__ import annotations

from exporter.deliver.report import figures, svg
from exporter.values import TrainingSummary

_WIDTH_PX, _HEIGHT_PX = 560, 250
_LEFT_PX, _RIGHT_PX, _TOP_PX, _BOTTOM_PX = 78, 78, 30, 58
_FEWEST_LOOKS = 2
_POINT_PX = 3.0
_ROOM = 1.1
"""How much more than the largest drift the axis holds."""


def has_curve(training: TrainingSummary | None) -> bool:
    """Say whether there is more than the look before the first step."""
    return training is not None and len(training.curve) >= _FEWEST_LOOKS


def draw_curve(training: TrainingSummary) -> str:
    """Draw drift over steps from zero on, so that what is left stands beside what is gone.

    The form that was taken is the lowest look; it and the first have their figures beside them.
    """
    looks = training.curve
    best = min(looks, key=lambda look: look.drift)
    most = max(max(look.drift for look in looks) * _ROOM, 1e-9)
    right, bottom = _WIDTH_PX - _RIGHT_PX, _HEIGHT_PX - _BOTTOM_PX
    last = max(looks[-1].step, 1)

    def place(step: int, drift: float) -> tuple[float, float]:
        across = _LEFT_PX + (right - _LEFT_PX) * step / last
        return across, bottom - (bottom - _TOP_PX) * drift / most

    parts = []
    for drift in svg.ticks(0.0, most, 4)[0]:
        y = place(0, drift)[1]
        parts.append(svg.line(_LEFT_PX, y, right, y, "thin"))
        parts.append(svg.text(_LEFT_PX - 8, y + 4, figures.drift(drift), "faint", "end"))
    for step in (int(one) for one in svg.ticks(0.0, float(last), 6)[0] if one == int(one)):
        x = place(step, 0.0)[0]
        parts.append(svg.text(x, bottom + 1.5 * svg.FONT_PX, str(step), "faint", "middle"))
    parts.append(svg.line(_LEFT_PX, bottom, right, bottom, "axis"))
    parts.append(svg.path([place(look.step, look.drift) for look in looks], "curve"))
    parts += [svg.circle(*place(look.step, look.drift), _POINT_PX, "mark") for look in looks]
    x, y = place(looks[0].step, looks[0].drift)
    parts.append(svg.text(x + 8, y - 8, figures.drift(looks[0].drift)))
    if best is not looks[0]:  # below the curve, where the first one's figure cannot be
        x, y = place(best.step, best.drift)
        under = min(y + 1.6 * svg.FONT_PX, bottom - 4)
        parts.append(svg.text(x + 8, under, figures.drift(best.drift)))
    below = "training steps; drift, 1 − mean cosine with FP32, of held-out texts"
    middle = (_LEFT_PX + right) / 2
    parts.append(svg.text(middle, bottom + 3.2 * svg.FONT_PX, below, "faint", "middle"))
    words = (
        f"{len(looks)} looks at {training.num_held_out} held-out texts: drift "
        f"{figures.drift(looks[0].drift)} before training, {figures.drift(best.drift)} at its "
        f"lowest after {best.step} steps"
    )
    return svg.document("Drift of held-out texts in training", words, _WIDTH_PX, _HEIGHT_PX, parts)
