"""Which way of quantizing keeps most on texts that no statistic was taken from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from exporter.values import MethodScore
from targets.contract import CALIBRATORS, Calibrator, QdqScheme, Switch
from targets.errors import ConfigError
from targets.quantization.prepare import Method

Score = Callable[[Method], float]


def choose_method(scheme: QdqScheme, score: Score) -> tuple[Method, tuple[MethodScore, ...]]:
    """Settle what a scheme leaves to "auto".

    Ranges are compared with weights rounded to nearest, since that is cheap and ranks them as
    well; compensated rounding is then compared with nearest for the winner.

    Args:
        scheme: what was asked for.
        score: drift (1 - mean cosine) of a method on held-out texts; smaller is better.

    Returns:
        The method, and everything that was compared, best first.

    Raises:
        ConfigError: smoothing and a calibrator that cannot go together were both asked for.
    """
    found: dict[Method, float] = {}

    def best_of(methods: Sequence[Method]) -> Method:
        if len(methods) == 1:
            return methods[0]
        found.update({method: score(method) for method in methods if method not in found})
        return min(methods, key=lambda method: found[method])

    chosen = best_of(ranges_of(scheme))
    roundings = [replace(chosen, correct=correct) for correct in _either(scheme.correction)]
    chosen = best_of(roundings)
    if chosen not in found:
        found[chosen] = score(chosen)
    ranked = sorted(found.items(), key=lambda item: item[1])
    return chosen, tuple(
        MethodScore(method=method.words, drift=drift, chosen=method == chosen)
        for method, drift in ranked
    )


def ranges_of(scheme: QdqScheme) -> tuple[Method, ...]:
    """Return the ways of finding ranges that a scheme allows, with nearest rounding.

    Smoothing takes the extremes of every channel; histograms are of the whole tensor before
    smoothing, so no other calibrator goes with it.

    Raises:
        ConfigError: both were asked for.
    """
    calibrator, smoothing = scheme.calibrator, scheme.smoothing
    if smoothing == "on" and calibrator not in ("auto", "minmax"):
        raise ConfigError(
            f"--smoothing on does not go with --calibrator {calibrator}",
            why="histograms are of tensors before smoothing; smoothing takes channels' extremes",
            hint="take --smoothing auto or off, or --calibrator minmax",
        )
    one = Method(integers=scheme.integers, symmetric=scheme.symmetric, smooth=False, correct=False)
    methods = []
    if smoothing != "off" and calibrator in ("auto", "minmax"):
        methods.append(replace(one, smooth=True))
    if smoothing != "on":
        methods += [replace(one, calibrator=name) for name in _calibrators(calibrator)]
    return tuple(methods)


def _calibrators(asked: Calibrator) -> tuple[Calibrator, ...]:
    if asked != "auto":
        return (asked,)
    return tuple(name for name in CALIBRATORS if name != "auto")


def _either(switch: Switch) -> tuple[bool, ...]:
    return {"off": (False,), "on": (True,), "auto": (True, False)}[switch]
