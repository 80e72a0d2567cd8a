"""TensorRT and TensorRT for RTX pass the conformance suite, as far as it needs no GPU."""

from __future__ import annotations

from collections.abc import Iterator

import checks
import pytest
from prepared_conformance import PreparedConformance, PreparedWorkshop
from subjects import NUM_THREADS, Subject
from tiny_graph import write_tiny_graph

from targets.errors import NotInstalledError
from targets.hardware.gpus import gpu_profiles
from targets.registry import BUILT_IN, load_target, open_device
from targets.tensorrt import target as tensorrt
from targets.tensorrt.files import ENGINE_FILE
from targets.tensorrt.sdk import INSTALL_RTX, import_rtx

_ADAPTER = frozenset({"onnxruntime"})
"""Of the simulation."""


class TestTensorRt(PreparedConformance):
    subject = Subject(
        entry_point=BUILT_IN["tensorrt"], sdk=("tensorrt",), adapter_packages=_ADAPTER
    )

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def no_compiler(cls) -> Iterator[None]:
        """As where TensorRT for RTX is not installed; with it, below and in integration tests."""

        def refuse() -> None:
            raise NotInstalledError("tensorrt_rtx is left out of this test")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tensorrt, "import_rtx", refuse)
            yield

    @pytest.mark.parametrize("gpu", gpu_profiles(), ids=lambda gpu: gpu.sm)
    def test_candidates_for_every_gpu(self, target, workshop, gpu):
        if not gpu.tensorrt:
            return
        hardware = target.prepared_hardware((gpu.compute_capability,))
        checks.check_candidates(target, workshop.graph.artifact, hardware)

    def test_other_weights_are_caught(self, target, workshop, tmp_path):
        """The suite's own twin: an artifact of another encoder is not taken for this one."""
        other = write_tiny_graph(tmp_path, seed=1)
        baseline = workshop.recipes(target)[0]
        artifact = target.compile(workshop.request(baseline, "other", other.artifact))
        plan = workshop.plan(target, artifact)
        with open_device("local").start(plan, NUM_THREADS) as runner:
            rows = runner.embed(workshop.tokens)
        with pytest.raises(AssertionError, match="cosine"):
            checks.check_embeddings(rows, workshop.graph.embed(workshop.tokens), 0.99)


@pytest.mark.tensorrt_rtx
class TestTensorRtRtx(PreparedConformance):
    subject = Subject(
        entry_point=BUILT_IN["tensorrt-rtx"],
        sdk=("tensorrt_rtx", "tensorrt_rtx_bindings"),
        adapter_packages=_ADAPTER,
        not_reproducible=frozenset({ENGINE_FILE}),
    )

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def compiler(cls) -> None:
        try:
            import_rtx()
        except NotInstalledError as error:
            pytest.skip(f"{error.what}: {INSTALL_RTX}")


# ------------------------------------------------- the suite's own twins: broken promises fail


class _Broken:
    """TensorRT's target with one promise broken."""

    def __init__(self, **parts) -> None:
        self._parts = parts

    def __getattr__(self, name):
        return self._parts.get(name) or getattr(load_target("tensorrt"), name)


def test_a_target_that_runs_what_is_unfinished_is_caught(tmp_path):
    target = load_target("tensorrt")
    workshop = PreparedWorkshop(
        folder=tmp_path, graph=write_tiny_graph(tmp_path), hardware=target.prepared_hardware(())
    )
    recipe = workshop.recipes(target)[0]
    eager = _Broken(run_plan=lambda *_: "a plan")
    with pytest.raises(AssertionError, match="prepared only"):
        checks.check_is_not_run_unfinished(eager, workshop, recipe)


def test_a_target_that_prepares_for_anything_is_caught():
    liberal = _Broken(prepared_hardware=lambda _: None)
    with pytest.raises(AssertionError, match="nobody makes"):
        checks.check_refuses_unknown_device(liberal)


def test_a_target_that_takes_this_machine_for_its_device_is_caught():
    here = open_device("local").hardware()
    with pytest.raises(AssertionError):
        checks.check_prepares_anywhere(_Broken(prepared_hardware=lambda _: here))
