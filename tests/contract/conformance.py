"""The conformance suite: a vendor subclasses `TargetConformance` and names its target.

    class TestMyTarget(TargetConformance):
        subject = Subject(
            entry_point="my_package:MyTarget",
            sdk=("my_sdk",),
            adapter_packages=frozenset({"my_sdk"}),
        )

Every check stands in `checks.py` with its reason. The target's runtime must be installed, and
the device must be this machine.
"""

from __future__ import annotations

from typing import ClassVar

import checks
import pytest
from subjects import MACHINES, NUM_THREADS, Subject, Workshop
from tiny_graph import write_tiny_graph

from targets.contract import Target, variants_of
from targets.registry import open_device

UNBACKED_COSINE = 0.95
"""Of recipes that this CPU does not back: without VNNI, the products of foreign quantizers
saturate at 16 bits, as the recipe's own note says."""


class TargetConformance:
    """Tests that every target must pass."""

    subject: ClassVar[Subject]

    @pytest.fixture(scope="class")
    @classmethod
    def target(cls) -> Target:
        return cls.subject.make()

    @pytest.fixture(scope="class")
    @classmethod
    def workshop(cls, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
        folder = tmp_path_factory.mktemp("conformance")
        graph = write_tiny_graph(folder)
        return Workshop(folder=folder, graph=graph, hardware=open_device("local").hardware())

    def test_spec_needs_no_sdk(self):
        checks.check_spec_needs_no_sdk(self.subject)

    def test_spec(self, target):
        checks.check_spec(target)

    def test_probe(self, target, workshop):
        checks.check_probe(target, workshop.hardware)

    def test_probe_here(self, target, workshop):
        """The suite builds and runs here, whatever the artifacts are made for."""
        found = target.probe(open_device("local"))
        fits = workshop.hardware.architecture in target.spec.architectures
        assert found.ok or not fits, found.missing
        assert not found.ok or found.fingerprint == workshop.hardware.fingerprint

    def test_probe_of_a_device_without_the_runtime(self, target, workshop):
        checks.check_probe_bare_device(target, workshop.hardware)

    def test_probe_of_another_architecture(self, target, workshop):
        checks.check_probe_other_architecture(target, workshop.hardware)

    def test_probe_without_sdk(self):
        checks.check_probe_without_sdk(self.subject)

    @pytest.mark.parametrize("machine", MACHINES)
    def test_candidates(self, target, workshop, machine):
        checks.check_candidates(target, workshop.graph.artifact, MACHINES[machine])

    def test_artifacts(self, target, workshop, capfd):
        for recipe in workshop.recipes(target):
            checks.check_artifact(target, workshop, recipe)
        printed = capfd.readouterr()
        assert printed.out == "", "compile writes to stdout, which belongs to results"
        assert printed.err == "", "compile writes to stderr; progress goes through the request"

    def test_deterministic(self, target, workshop):
        for recipe in workshop.distinct(target):
            checks.check_deterministic(target, workshop, recipe, self.subject.not_reproducible)

    def test_progress(self, target, workshop):
        for recipe in workshop.distinct(target):
            checks.check_progress(target, workshop, recipe)

    def test_refuses_a_foreign_recipe(self, target, workshop):
        checks.check_refuses_foreign_recipe(target, workshop)

    def test_refuses_an_override_that_matches_nothing(self, target, workshop):
        recipes = [r for r in workshop.recipes(target) if r.quantizer != "none"]
        if recipes:  # a target without quantizers has nothing to leave in float
            checks.check_refuses_unmatched_override(target, workshop, recipes[0])

    def test_plans(self, target, workshop):
        for recipe in workshop.recipes(target):
            checks.check_plan(target, workshop, workshop.built(target, recipe))

    def test_variants(self, target, workshop):
        for recipe in workshop.recipes(target):
            plan = workshop.plan(target, workshop.built(target, recipe))
            for num_threads in (1, NUM_THREADS, 8):
                checks.check_variants(target, plan, num_threads)

    def test_variants_are_the_same_artifact(self, target, workshop):
        plan = workshop.plan(target, workshop.built(target, workshop.recipes(target)[0]))
        with open_device("local").start(plan, NUM_THREADS) as runner:
            expected = runner.embed(workshop.tokens)
        for variant in variants_of(target, plan, NUM_THREADS):
            with open_device("local").start(variant.plan, variant.num_threads) as runner:
                checks.check_embeddings(runner.embed(workshop.tokens), expected, 0.9999)

    def test_shipping(self, target, workshop):
        for recipe in workshop.recipes(target):
            checks.check_shipping(target, workshop.built(target, recipe))

    def test_adapter_travels_alone(self, target, workshop):
        baseline = workshop.built(target, workshop.recipes(target)[0])
        checks.check_adapter(self.subject, workshop.plan(target, baseline))

    def test_embeddings_are_the_model_s(self, target, workshop):
        expected = workshop.graph.embed(workshop.tokens)
        for recipe in workshop.distinct(target):
            plan = workshop.plan(target, workshop.built(target, recipe))
            with open_device("local").start(plan, NUM_THREADS) as runner:
                rows = runner.embed(workshop.tokens)
            exact = recipe.precision == "float32"
            least = 0.999999 if exact else self.subject.min_cosine
            if recipe.requires and not workshop.hardware.features.intersection(recipe.requires):
                least = min(least, UNBACKED_COSINE)
            checks.check_embeddings(rows, expected, least)
