"""Ways of running the chosen artifact, on a device whose figures stand in a table."""

from __future__ import annotations

from dataclasses import replace

import pytest
from arena import Arena, Runs

from exporter.steps import tournament
from exporter.steps.variants import as_variant, run_alike

TABLE = {
    "float32": Runs(single_ms=10, batched_ms=100),
    "int8": Runs(single_ms=5, batched_ms=50),
}
FASTER = {"single_ms": 4, "batched_ms": 40}
SLOWER = {"single_ms": 6, "batched_ms": 60}


@pytest.fixture
def arena(tmp_path, monkeypatch):
    def make(variants, table=TABLE, **changes) -> Arena:
        made = Arena(folder=tmp_path / "cache", table=table, variants=variants, **changes)
        monkeypatch.setattr(tournament, "compilers", made.compilers)
        return made

    return make


def by_name(outcome):
    return {one.name: one for one in outcome.variants}


def test_the_faster_way_is_taken_and_what_it_changes_goes_on(arena):
    variants = {
        "buckets": ({"length_multiple": 32}, FASTER),
        "batches": ({"max_batch_tokens": 4096}, SLOWER),
    }
    outcome = arena(variants).hold()
    found = by_name(outcome)
    assert list(found) == ["default", "buckets", "batches"]
    assert {name: one.status for name, one in found.items()} == {
        "default": "eligible",
        "buckets": "chosen",
        "batches": "eligible",
    }
    assert outcome.chosen.plan.length_multiple == 32
    assert outcome.chosen.plan.options["variant"] == "buckets"
    assert "1.25x the default on the mixes" in found["buckets"].reason
    assert "beyond the noise" in found["buckets"].reason
    assert "0.83x" in found["batches"].reason
    assert found["buckets"].length_multiple == 32


def test_baseline_and_best_float_run_alike(arena):
    outcome = arena({"buckets": ({"length_multiple": 32}, FASTER)}).hold()
    for built in (outcome.baseline, outcome.best_float):
        assert built.recipe.name == "float32"
        assert (built.variant, built.plan.length_multiple) == ("buckets", 32)


def test_no_gain_leaves_the_target_s_own_plan(arena):
    outcome = arena({"buckets": ({"length_multiple": 32}, {"single_ms": 4.95})}).hold()
    found = by_name(outcome)
    assert found["default"].status == "chosen"
    assert "measurably faster" in found["default"].reason
    assert outcome.chosen.variant == outcome.baseline.variant == ""
    assert outcome.chosen.plan.length_multiple == 16


def test_other_embeddings_drop_the_fastest(arena):
    outcome = arena({"buckets": ({"length_multiple": 32}, {**FASTER, "noise": 0.1})}).hold()
    dropped = by_name(outcome)["buckets"]
    assert dropped.status == "dropped"
    assert "differ from the default's" in dropped.reason
    assert dropped.min_cosine < 0.9999
    assert dropped.latency == ()
    assert outcome.chosen.variant == ""


def test_embeddings_that_agree_are_said_to(arena):
    outcome = arena({"buckets": ({"length_multiple": 32}, {**FASTER, "noise": 0.001})}).hold()
    assert 0.9999 <= by_name(outcome)["buckets"].min_cosine < 1.0
    assert outcome.chosen.variant == "buckets"


def test_a_way_that_does_not_run_is_failed_by_name(arena):
    outcome = arena({"buckets": ({"length_multiple": 32}, {"crashes": True})}).hold()
    failed = by_name(outcome)["buckets"]
    assert failed.status == "failed"
    assert "it died" in failed.reason
    assert outcome.chosen.variant == ""


def test_a_way_that_needs_what_is_not_there_was_not_run(arena):
    """The twin of a failure: nothing is broken, and the reason says what would be needed."""
    outcome = arena({"buckets": ({"length_multiple": 32}, {"lacks": "C++ compiler"})}).hold()
    dropped = by_name(outcome)["buckets"]
    assert dropped.status == "dropped"
    assert dropped.reason.startswith("not run: there is no C++ compiler")
    assert outcome.chosen.variant == ""


@pytest.mark.parametrize(("objective", "way"), [("latency", "alone"), ("throughput", "bulk")])
def test_the_objective_s_mix_decides_here_too(arena, objective, way):
    variants = {
        "alone": ({"length_multiple": 8}, {"single_ms": 4, "batched_ms": 80}),
        "bulk": ({"max_batch_tokens": 4096}, {"single_ms": 8, "batched_ms": 40}),
    }
    assert arena(variants, settings={"objective": objective}).hold().chosen.variant == way


@pytest.mark.parametrize(("workload", "tried"), [("queries", False), ("documents", True)])
def test_a_knob_of_batches_is_not_tried_on_single_requests(arena, workload, tried):
    plain = {"max_batch_tokens": 4096, "options": {"recipe": "int8"}}  # no option beside it
    made = arena({"bulk": (plain, FASTER)}, settings={"workload": workload})
    assert bool(made.hold().variants) is tried


def test_a_spent_budget_leaves_variants_untried(arena):
    made = arena(
        {"buckets": ({"length_multiple": 32}, FASTER)},
        compile_s=100.0,
        settings={"search_budget_s": 10.0},
    )
    outcome = made.hold()
    untried = by_name(outcome)["buckets"]
    assert (untried.status, untried.latency) == ("dropped", ())
    assert untried.reason == "not tried: the search budget of 10 s was spent"
    assert by_name(outcome)["default"].status == "chosen"


def test_a_forced_recipe_runs_as_its_target_says(arena):
    made = arena({"buckets": ({"length_multiple": 32}, FASTER)}, settings={"precision": "int8"})
    outcome = made.hold()
    assert outcome.variants == ()
    assert outcome.chosen.variant == ""


def test_a_target_without_variants_has_none(arena):
    outcome = arena({}).hold()
    assert outcome.variants == ()


def test_threads_and_plan_of_a_variant_have_keys_of_their_own(arena):
    """What is cached for one way of running must not be found for another."""
    made = arena({"buckets": ({"length_multiple": 32}, FASTER)})
    outcome = made.hold()
    chosen = outcome.chosen
    default = replace(chosen, variant="", plan=outcome.baseline.plan, num_threads=None)
    assert chosen.identity != default.identity
    assert replace(chosen, num_threads=4).identity != chosen.identity
    assert chosen.name != default.name


def test_an_artifact_without_such_a_variant_stays_as_it_is(arena):
    made = arena({"buckets": ({"length_multiple": 32}, FASTER)})
    built = made.hold().baseline
    plain = replace(built, variant="", num_threads=None)
    contest = made.contest(_bench(made))
    assert run_alike(contest, plain, "nonsense") == plain
    variant = made._variants(plain.plan, 1)[0]
    assert run_alike(contest, plain, "buckets") == as_variant(plain, variant)


def _bench(made):
    from exporter.steps.execution import Bench

    return Bench(made._work(), made._stand())
