"""ARM's own kernels, under emulation: what ships runs there, and computes what it should."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from contract.tiny_graph import LINEAR_PATHS, PAD_ID, TinyGraph, make_tokens
from contract.tiny_plans import write_plans

from targets.contract import CompileRequest, FloatArray, RunPlan
from targets.devices.emulated import EmulatedDevice, emulated_cpu
from targets.onnxruntime.mobile import MobileTarget
from targets.registry import open_device

pytestmark = [pytest.mark.qemu, pytest.mark.slow]

TARGET = MobileTarget()
TEXTS = make_tokens(num_texts=6)
WITH_DOT_PRODUCT, WITHOUT = "neoverse-n1", "cortex-a72"


@pytest.fixture
def emulate(emulation: Callable[[str], Path]) -> Callable[[str], EmulatedDevice]:
    """Open an emulated device; skips where its userland cannot be set up."""

    def open_one(cpu: str) -> EmulatedDevice:
        row, _ = emulated_cpu(cpu)
        return EmulatedDevice(cpu, root=emulation(row.architecture))

    return open_one


def plan_for(device: EmulatedDevice, encoder: TinyGraph, name: str, folder: Path) -> RunPlan:
    """Compile a recipe for a device."""
    hardware = device.hardware()
    recipes = TARGET.candidates(encoder.artifact, hardware)
    recipe = next(one for one in recipes if one.name == name)
    plans = folder / "plans.npz"
    if recipe.scheme is not None:
        write_plans(plans, encoder.artifact, make_tokens(), recipe.scheme)
    request = CompileRequest(
        graph=encoder.artifact,
        recipe=recipe,
        calibration=make_tokens(),
        plans=plans if recipe.scheme is not None else None,
        hardware=hardware,
        output_dir=folder / "built",
        num_threads=1,
        seed=0,
    )
    request.output_dir.mkdir()
    return TARGET.run_plan(TARGET.compile(request), encoder.artifact, PAD_ID, 1)


def least_cosine(one: FloatArray, other: FloatArray) -> float:
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(((one * other).sum(axis=1) / norms).min())


def test_int8_is_the_same_with_and_without_dot_products(emulate, encoder, tmp_path):
    device = emulate(WITH_DOT_PRODUCT)
    assert TARGET.probe(device).ok
    plan = plan_for(device, encoder, "int8-static", tmp_path)
    with device.start(plan, 1) as runner:
        rows = runner.embed(TEXTS)
        executed = {(row.op_type, row.dtype): row.count for row in runner.inspect(TEXTS)}
        assert runner.info().peak_rss_bytes > 0
    assert executed["MatMulIntegerToFloat", "int8"] == len(LINEAR_PATHS)
    with emulate(WITHOUT).start(plan, 1) as runner:
        np.testing.assert_array_equal(runner.embed(TEXTS), rows)
    with open_device("local").start(plan, 1) as runner:
        here = runner.embed(TEXTS)
    assert least_cosine(rows, here) > 0.999
    assert least_cosine(rows, encoder.embed(TEXTS)) > 0.99
    assert least_cosine(rows, np.roll(here, 1, axis=0)) < 0.9, "any text would have passed"
