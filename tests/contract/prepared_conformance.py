"""The conformance suite for targets that work where their device is not.

What needs the device skips with the reason. Everything else runs: artifacts are made for the
target's default device, and their arithmetic is simulated here.
"""

from __future__ import annotations

import checks
import pytest
from conformance import TargetConformance
from subjects import NUM_THREADS, Workshop
from tiny_graph import PAD_ID, write_tiny_graph

from targets.contract import CompiledArtifact, RunPlan, Target
from targets.registry import open_device


class PreparedWorkshop(Workshop):
    """Artifacts for a device that is not here, run by the target's simulation."""

    def plan(self, target: Target, artifact: CompiledArtifact) -> RunPlan:
        return target.simulation(artifact, self.graph.artifact, PAD_ID, NUM_THREADS)


class PreparedConformance(TargetConformance):
    """Tests that every target must pass that prepares for a device elsewhere."""

    @pytest.fixture(scope="class")
    @classmethod
    def workshop(cls, target: Target, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
        folder = tmp_path_factory.mktemp("conformance")
        graph = write_tiny_graph(folder)
        return PreparedWorkshop(folder=folder, graph=graph, hardware=target.prepared_hardware(()))

    @pytest.fixture
    def device(self, target: Target) -> None:
        """Skip where the target's device is not."""
        found = target.probe(open_device("local"))
        if not found.ok:
            pytest.skip(f"needs the target's device: {'; '.join(found.missing)}")

    def test_probe(self, target, workshop):
        checks.check_probe_of_the_absent(target)

    def test_probe_here(self, target, device):
        found = target.probe(open_device("local"))
        hardware = target.detected_hardware(open_device("local"))
        assert found.fingerprint == hardware.fingerprint

    def test_probe_of_a_device_without_the_runtime(self, target, workshop, device):
        checks.check_probe_bare_device(target, workshop.hardware)

    def test_probe_of_another_architecture(self, target, workshop, device):
        checks.check_probe_other_architecture(target, workshop.hardware)

    def test_variants_are_the_same_artifact(self, target, workshop, device):
        super().test_variants_are_the_same_artifact(target, workshop)

    def test_adapter_travels_alone(self, target, workshop):
        baseline = workshop.built(target, workshop.recipes(target)[0])
        checks.check_adapter_alone(self.subject, workshop.plan(target, baseline))

    def test_progress(self, target, workshop):
        checks.check_progress(target, workshop, workshop.recipes(target)[0])  # compilers are slow

    def test_prepares_anywhere(self, target):
        checks.check_prepares_anywhere(target)

    def test_refuses_a_device_that_nobody_makes(self, target):
        checks.check_refuses_unknown_device(target)

    def test_structure(self, target, workshop):
        for recipe in workshop.distinct(target):
            checks.check_structure(target, workshop.built(target, recipe))

    def test_is_not_run_unfinished(self, target, workshop):
        for recipe in workshop.distinct(target):
            checks.check_is_not_run_unfinished(target, workshop, recipe)
