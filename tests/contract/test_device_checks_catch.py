"""Every check of the device suite passes a good device and fails one that breaks it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from device_checks import DEADLY_ID, DEVICE_CHECKS, NOBODY_HAS, make_kit

from targets.devices.local import LocalDevice
from targets.errors import DeviceError, RunnerCrashedError


class WrappedRunner:
    """A good runner in other hands."""

    def __init__(self, runner):
        self._runner = runner

    def __getattr__(self, name):
        return getattr(self._runner, name)


class GoodDevice(LocalDevice):
    runner = WrappedRunner

    def start(self, plan, num_threads):
        return self.runner(super().start(plan, num_threads))


# ------------------------------------------------------------------ one promise broken


class AnotherMachineEachTime(GoodDevice):
    def __init__(self):
        super().__init__()
        self.cores = itertools.count(1)

    def hardware(self):
        return replace(super().hardware(), num_cores=next(self.cores))


class Nameless(GoodDevice):
    def __init__(self):
        super().__init__("")


class ClaimsEverything(GoodDevice):
    def distributions(self, names):
        return dict.fromkeys(names, "1.0")


class EmptyForAbsence(GoodDevice):
    def distributions(self, names):
        return {NOBODY_HAS: ""} | super().distributions(names) if names else {}


class WithoutNumpy(GoodDevice):
    def distributions(self, names):
        return {}


class NamesMore(GoodDevice):
    def distributions(self, names):
        return super().distributions(("numpy", *names))


class OtherNumpy(GoodDevice):
    def distributions(self, names):
        return {name: "0.1" for name in super().distributions(names)}


class SwapsRows(GoodDevice):
    class runner(WrappedRunner):  # noqa: N801
        def embed(self, tokens, *rest):
            return self._runner.embed(tokens, *rest)[np.argsort(tokens.lengths)]


class Double(GoodDevice):
    class runner(WrappedRunner):  # noqa: N801
        def embed(self, tokens, *rest):
            return self._runner.embed(tokens, *rest).astype(np.float64)


class ForgetsOptions(GoodDevice):
    class runner(WrappedRunner):  # noqa: N801
        def info(self):
            return replace(self._runner.info(), options={})


class Timeless(GoodDevice):
    class runner(WrappedRunner):  # noqa: N801
        def time(self, workload, passes, warmup=0):
            return np.zeros(passes, np.float32)


class TimesWhereNoneIs(GoodDevice):
    measures_latency = False


class RefusesForNoReason(GoodDevice):
    measures_latency = False

    class runner(WrappedRunner):  # noqa: N801
        def time(self, workload, passes, warmup=0):
            raise DeviceError("no")


class CannotCloseTwice(GoodDevice):
    class runner(WrappedRunner):  # noqa: N801
        closed = False

        def close(self):
            assert not self.closed, "closed already"
            self.closed = True
            self._runner.close()


class NeverEnds(GoodDevice):
    class runner(WrappedRunner):  # noqa: N801
        def __init__(self, runner):
            super().__init__(runner)
            self.close = lambda: None


class RawErrors(GoodDevice):
    class runner(WrappedRunner):  # noqa: N801
        def inspect(self, tokens):
            return self._runner.inspect(tokens) if len(tokens) else [][0]


class RawCrash(GoodDevice):
    class runner(WrappedRunner):  # noqa: N801
        def embed(self, tokens, *rest):
            try:
                return self._runner.embed(tokens, *rest)
            except RunnerCrashedError as error:
                raise BrokenPipeError(str(error)) from error


class NamelessCrash(GoodDevice):
    class runner(WrappedRunner):  # noqa: N801
        def embed(self, tokens, *rest):
            try:
                return self._runner.embed(tokens, *rest)
            except RunnerCrashedError:
                raise RunnerCrashedError("it died") from None


class ZerosForTheDead(GoodDevice):
    class runner(WrappedRunner):  # noqa: N801
        def embed(self, tokens, *rest):
            if (tokens.ids == DEADLY_ID).any():
                return np.zeros((len(tokens), 6), np.float32)
            return self._runner.embed(tokens, *rest)


class DiesTogether(GoodDevice):
    def __init__(self):
        super().__init__()
        self.shared = None

    def start(self, plan, num_threads):
        if self.shared is None:
            self.shared = super().start(plan, num_threads)
        return self.shared


class TakesAnyModel(GoodDevice):
    def start(self, plan, num_threads):
        return super().start(replace(plan, model=plan.model.with_name("table.npy")), num_threads)


class NamelessModel(GoodDevice):
    def start(self, plan, num_threads):
        if not plan.model.exists():
            raise DeviceError("a file is missing")
        return super().start(plan, num_threads)


BROKEN = [
    ("identity", AnotherMachineEachTime, "another hardware"),
    ("identity", Nameless, "without a name"),
    ("distributions", ClaimsEverything, "what is not there"),
    ("distributions", EmptyForAbsence, "what is not there"),
    ("distributions", WithoutNumpy, "numpy is not named"),
    ("distributions", NamesMore, "asked for nothing"),
    ("runner", OtherNumpy, "another numpy"),
    ("runner", SwapsRows, "not those of the texts"),
    ("runner", Double, "float64"),
    ("runner", ForgetsOptions, "options are not told"),
    ("runner", Timeless, "took no time"),
    ("runner", TimesWhereNoneIs, "means nothing"),
    ("runner", RefusesForNoReason, "does not say what is refused"),
    ("runner", CannotCloseTwice, "closed already"),
    ("runner", NeverEnds, "after it has been closed"),
    ("runner", RawErrors, "IndexError"),
    ("death", RawCrash, "BrokenPipeError"),
    ("death", NamelessCrash, "does not name the device"),
    ("death", ZerosForTheDead, "nobody says so"),
    ("missing model", TakesAnyModel, "without the artifact"),
    ("missing model", NamelessModel, "does not name the file"),
]


@pytest.mark.parametrize("check", DEVICE_CHECKS)
def test_a_good_device_passes(check, tmp_path):
    DEVICE_CHECKS[check](GoodDevice(), make_kit(tmp_path))


@pytest.mark.parametrize(("check", "kind", "words"), BROKEN)
def test_a_broken_promise_is_caught(check, kind, words, tmp_path):
    with pytest.raises(AssertionError, match=words):
        DEVICE_CHECKS[check](kind(), make_kit(tmp_path))


def test_runners_that_die_together_are_caught(tmp_path):
    with pytest.raises(RunnerCrashedError, match="has been ended"):
        DEVICE_CHECKS["death"](DiesTogether(), make_kit(tmp_path))


def test_every_check_has_a_twin():
    assert {check for check, _, _ in BROKEN} == set(DEVICE_CHECKS)
