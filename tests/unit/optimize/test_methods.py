"""Which ways of quantizing are compared, and which is taken."""

from __future__ import annotations

import itertools

import pytest

from exporter.optimize.methods import choose_method, ranges_of
from targets.contract import QdqScheme
from targets.errors import ConfigError
from targets.quantization.prepare import Method

HISTOGRAMS = {"minmax", "percentile", "entropy", "mse"}


class Scores:
    """Drift by (range, corrected); keeps what it was asked."""

    def __init__(self, **drifts: float) -> None:
        self.asked: list[Method] = []
        self._drifts = drifts

    def __call__(self, method: Method) -> float:
        self.asked.append(method)
        drift = self._drifts.get(kind(method), 0.5)
        return drift * self._drifts.get("corrected", 0.5) if method.correct else drift


def kind(method: Method) -> str:
    return "smoothed" if method.smooth else method.calibrator


def ranges_expected(calibrator: str, smoothing: str) -> set[str]:
    """What is compared; written down from the option's descriptions."""
    table = {
        ("auto", "auto"): {"smoothed", *HISTOGRAMS},
        ("auto", "on"): {"smoothed"},
        ("auto", "off"): HISTOGRAMS,
        ("minmax", "auto"): {"smoothed", "minmax"},
        ("minmax", "on"): {"smoothed"},
        ("minmax", "off"): {"minmax"},
    }
    return table.get((calibrator, smoothing), {calibrator})


COMBINATIONS = [
    one
    for one in itertools.product(
        ("auto", "minmax", "percentile", "entropy", "mse"),
        ("auto", "on", "off"),
        ("auto", "on", "off"),
    )
    if one[1] != "on" or one[0] in ("auto", "minmax")
]


@pytest.mark.parametrize(("calibrator", "smoothing", "correction"), COMBINATIONS)
def test_what_is_compared(calibrator: str, smoothing: str, correction: str) -> None:
    scheme = QdqScheme(calibrator=calibrator, smoothing=smoothing, correction=correction)
    score = Scores(mse=0.1, smoothed=0.05)
    method, scores = choose_method(scheme, score)
    ranges = ranges_expected(calibrator, smoothing)
    assert {kind(one) for one in ranges_of(scheme)} == ranges
    assert {kind(one) for one in score.asked} == ranges
    assert len(score.asked) == len(set(score.asked)), "nothing is tried twice"
    best = "smoothed" if "smoothed" in ranges else "mse" if "mse" in ranges else min(ranges)
    assert kind(method) == best
    # Nearest rounding ranks ranges; compensated rounding is tried for the winner alone.
    corrected = [one for one in score.asked if one.correct]
    assert len(corrected) == (correction != "off")
    assert method.correct == (correction != "off")
    nearest = [one for one in score.asked if not one.correct]
    assert len(nearest) == (0 if len(ranges) == 1 and correction == "on" else len(ranges))
    assert sorted(one.drift for one in scores) == [one.drift for one in scores]
    assert [one.method for one in scores if one.chosen] == [method.words]
    assert len(scores) == len(score.asked)


def test_correction_that_hurts_is_left_out() -> None:
    method, scores = choose_method(QdqScheme(), Scores(smoothed=0.1, corrected=2.0))
    assert method == Method(smooth=True, correct=False)
    assert scores[0].chosen
    assert "smoothed, compensated rounding" in [one.method for one in scores]


def test_correction_that_was_asked_for_is_taken_whatever_it_measures() -> None:
    method, scores = choose_method(QdqScheme(correction="on"), Scores(smoothed=0.1, corrected=9.0))
    assert method.correct
    (chosen,) = (one for one in scores if one.chosen)
    assert chosen.drift == scores[-1].drift == pytest.approx(0.9)


@pytest.mark.parametrize("best", ["smoothed", *sorted(HISTOGRAMS)])
def test_the_least_drift_wins(best: str) -> None:
    method, scores = choose_method(QdqScheme(), Scores(**{best: 0.01}))
    assert kind(method) == best
    assert scores[0].chosen
    assert scores[0].method == method.words


def test_of_equals_the_first_is_taken() -> None:
    assert choose_method(QdqScheme(), Scores(corrected=1.0))[0] == Method(smooth=True, correct=True)


def test_the_scheme_s_integers_are_kept() -> None:
    score = Scores()
    choose_method(QdqScheme(integers="S8S8", symmetric=True), score)
    assert {(one.integers, one.symmetric) for one in score.asked} == {("S8S8", True)}


@pytest.mark.parametrize("calibrator", ["percentile", "entropy", "mse"])
def test_smoothing_and_histograms_do_not_go_together(calibrator: str) -> None:
    score = Scores()
    with pytest.raises(ConfigError) as caught:
        choose_method(QdqScheme(calibrator=calibrator, smoothing="on"), score)
    assert caught.value.what == f"--smoothing on does not go with --calibrator {calibrator}"
    assert "--calibrator minmax" in caught.value.hint
    assert score.asked == [], "it is said before any work"
