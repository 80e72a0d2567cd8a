"""One plan: profiles from real lengths, JSON, and trtexec in the spelling of each version."""

from __future__ import annotations

import json

import numpy as np
import pytest

from targets.contract import TokenSequences
from targets.errors import CompileError, ConfigError
from targets.tensorrt.build_plan import (
    BuildPlan,
    Profile,
    profiles_for,
    trtexec_line,
    with_options,
)

INPUTS = ("input_ids", "attention_mask")
PROFILE = Profile(smallest=(1, 1), typical=(8, 32), largest=(64, 64))


def tokens(*lengths: int) -> TokenSequences:
    return TokenSequences.from_lists([[5] * one for one in lengths], 0)


def plan(**changes) -> BuildPlan:
    return BuildPlan(**{"graph": "m.onnx", "inputs": INPUTS, "profiles": (PROFILE,), **changes})


def test_short_texts_get_a_profile_of_their_own():
    first, second = profiles_for(tokens(*[20] * 95, *[200] * 5), 256)
    assert first == Profile(smallest=(1, 1), typical=(8, 20), largest=(64, 32))
    assert second == Profile(smallest=(1, 1), typical=(8, 144), largest=(64, 256))


def test_long_texts_need_only_one():
    assert profiles_for(tokens(*[250] * 10), 256) == (
        Profile(smallest=(1, 1), typical=(8, 256), largest=(64, 256)),
    )


@pytest.mark.parametrize("limit", [1, 7, 64, 512])
def test_sizes_never_fall(limit):
    lengths = np.random.default_rng(limit).integers(1, limit + 1, 50)
    for one in profiles_for(tokens(*lengths), limit):
        for low, middle, high in zip(one.smallest, one.typical, one.largest, strict=True):
            assert 1 <= low <= middle <= high
        assert one.largest[1] <= limit


def test_no_texts_have_no_lengths():
    with pytest.raises(CompileError, match="no texts"):
        profiles_for(tokens(), 64)


def test_a_plan_survives_json():
    made = plan(compute_capabilities=("8.9", "12.0"), version_compatible=True)
    assert BuildPlan.from_json(made.to_json()) == made


@pytest.mark.parametrize(
    "damage",
    [
        lambda values: values.pop("profiles"),
        lambda values: values.update(version=99),
        lambda values: values.update(unknown=1),
        lambda values: values.update(profiles=[{"smallest": [1]}]),
    ],
    ids=["missing", "version", "unknown", "shape"],
)
def test_another_plan_is_refused(damage):
    values = json.loads(plan().to_json())
    damage(values)
    with pytest.raises(CompileError, match="cannot be read"):
        BuildPlan.from_json(json.dumps(values))


def test_trtexec_10_must_be_told_what_11_does_anyway():
    ten, eleven = (trtexec_line(plan(), "m.plan", major=major) for major in (10, 11))
    assert "--stronglyTyped" in ten
    assert "--stronglyTyped" not in eleven
    assert ten.replace(" --stronglyTyped", "") == eleven


def test_trtexec_names_everything_that_the_builder_is_told():
    line = trtexec_line(
        plan(profiles=(PROFILE, PROFILE), hardware_compatible=True, version_compatible=True),
        "m.plan",
        major=11,
    )
    for word in (
        "--onnx=m.onnx",
        "--saveEngine=m.plan",
        "--profile=0",
        "--profile=1",
        "--optShapes=input_ids:8x32,attention_mask:8x32",
        "--builderOptimizationLevel=3",
        "--avgTiming=8",
        "--memPoolSize=workspace:4096M",
        "--hardwareCompatibilityLevel=ampere+",
        "--versionCompatible",
    ):
        assert word in line


def test_the_builder_s_options_change_the_plan_and_so_the_trtexec_line():
    given = {
        "optimization_level": "5",
        "timing_iterations": "2",
        "workspace_mib": "512",
        "hardware_compatible": "true",
        "version_compatible": "True",
    }
    changed = with_options(plan(), given)
    assert with_options(changed, {}) == changed
    assert BuildPlan.from_json(changed.to_json()) == changed
    line = trtexec_line(changed, "m.plan", major=11)
    for word in ("Level=5", "--avgTiming=2", "workspace:512M", "ampere+", "--versionCompatible"):
        assert word in line


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"optimisation_level": "5"}, "is not known"),
        ({"optimization_level": "6"}, "must be 0 to 5"),
        ({"workspace_mib": "0"}, "whole number of MiB"),
        ({"version_compatible": "yes"}, "true or false"),
    ],
)
def test_other_options_are_refused(option, message):
    with pytest.raises(ConfigError, match=message):
        with_options(plan(), option)


def test_trtexec_keeps_timings_where_the_plan_says():
    assert "--timingCacheFile=t.timing" in trtexec_line(
        plan(timing_cache="t.timing"), "m", major=11
    )
    assert "timingCache" not in trtexec_line(plan(), "m", major=11)
