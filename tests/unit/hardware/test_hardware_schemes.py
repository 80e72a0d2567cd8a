"""Which int8 schemes are exact on which CPU."""

from __future__ import annotations

import numpy as np
import pytest

from targets.hardware.precisions import ONNX_RUNTIME, OPENVINO, adds_pairs_with_saturation
from targets.hardware.profiles import cpu_profile, cpu_profiles
from targets.hardware.schemes import int8_schemes, safe_int8_schemes


def safe(name: str, runtime: str = ONNX_RUNTIME) -> set[str]:
    return set(safe_int8_schemes(cpu_profile(name).hardware(1, 1), runtime))


@pytest.mark.parametrize(
    ("name", "schemes"),
    [
        ("haswell", {"U8U8", "S8S8"}),
        ("skylake-server", {"U8U8", "S8S8"}),
        ("zen3", {"U8U8", "S8S8"}),
        ("cascade-lake", {"U8S8", "U8U8", "S8S8"}),
        ("alder-lake", {"U8S8", "U8U8", "S8S8"}),
        ("sierra-forest", {"U8S8", "U8U8", "S8S8"}),
        ("cortex-a72", {"U8S8", "U8U8"}),
        ("cortex-a76", {"U8S8", "U8U8", "S8S8"}),
        ("graviton3", {"U8S8", "U8U8", "S8S8"}),
    ],
)
def test_safe_schemes_in_onnx_runtime(name, schemes):
    assert safe(name) == schemes


@pytest.mark.parametrize(
    ("name", "schemes"),
    [("haswell", set()), ("cascade-lake", {"U8S8", "S8S8"}), ("graviton2", {"U8S8", "S8S8"})],
)
def test_openvino_multiplies_signed_weights_only(name, schemes):
    assert safe(name, OPENVINO) == schemes


def test_u8s8_is_unsafe_exactly_where_pairs_saturate():
    for row in cpu_profiles():
        hardware = row.hardware(1, 1)
        for runtime in (ONNX_RUNTIME, OPENVINO, ""):
            exact = {one.integers: one.exact for one in int8_schemes(hardware, runtime)}
            assert exact["U8S8"] is not adds_pairs_with_saturation(hardware), row.name


def test_every_verdict_says_why_and_what_to_do():
    for row in cpu_profiles():
        for one in int8_schemes(row.hardware(1, 1), ONNX_RUNTIME):
            assert one.note
            if not one.exact:
                assert "exact only with" in one.note


@pytest.mark.parametrize(
    ("activation", "weight", "fits"),
    [(255, 127, False), (255, 64, True), (-128, -128, False), (-128, -127, True)],
)
def test_the_limits_that_the_notes_name(activation, weight, fits):
    """Two products, added in 16 bits: what VPMADDUBSW and SMLAL have room for."""
    total = 2 * activation * weight
    limits = np.iinfo(np.int16)
    assert (limits.min <= total <= limits.max) is fits
