"""The tournament on a device whose figures stand in a table."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from arena import LOOSE, Arena, Runs, tokens_of

from exporter.optimize.workloads import MIX_BATCHED, MIX_SINGLE
from exporter.steps import tournament
from exporter.steps.schedule import Turns

# The target's order: baseline, a float, three int8 recipes of falling promise.
TABLE = {
    "float32": Runs(single_ms=10, batched_ms=100, size_bytes=90),
    "bfloat16": Runs(single_ms=7, batched_ms=40, size_bytes=45),
    "int8": Runs(single_ms=5, batched_ms=60, size_bytes=23),
    "int8-mixed": Runs(single_ms=6, batched_ms=50, size_bytes=34),
    "int8-weights": Runs(single_ms=9.5, batched_ms=99, size_bytes=22),
}
FAR = 0.9
"""Noise that no policy of these tests lets pass."""


@pytest.fixture
def arena(tmp_path, monkeypatch):
    """Make an arena; its target compiles in this process."""

    def make(table=TABLE, **changes) -> Arena:
        made = Arena(folder=tmp_path / "cache", table=table, **changes)
        monkeypatch.setattr(tournament, "compilers", made.compilers)
        return made

    return make


def with_runs(**changes: dict) -> dict[str, Runs]:
    renamed = {name.replace("_", "-"): change for name, change in changes.items()}
    return {name: replace(runs, **renamed.get(name, {})) for name, runs in TABLE.items()}


def chosen(outcome) -> str:
    return next(c.recipe.name for c in outcome.candidates if c.status == "chosen")


def reasons(outcome) -> dict[str, str]:
    return {c.recipe.name: c.reason for c in outcome.candidates}


# ------------------------------------------------------------------------- the objective


@pytest.mark.parametrize(
    ("objective", "winner"),
    [
        ("balanced", "bfloat16"),
        ("latency", "int8"),
        ("throughput", "bfloat16"),
        ("size", "int8-weights"),
    ],
)
def test_the_objective_decides(arena, objective, winner):
    table = with_runs(bfloat16={"single_ms": 7, "batched_ms": 30})
    outcome = arena(table, settings={"objective": objective}).hold()
    assert chosen(outcome) == winner
    assert outcome.chosen.recipe.name == winner


def test_the_smallest_must_not_be_slower_than_fp32(arena):
    table = with_runs(int8_weights={"single_ms": 11, "batched_ms": 101})
    outcome = arena(table, settings={"objective": "size"}).hold()
    assert chosen(outcome) == "int8"
    strict = replace(LOOSE, min_speedup=1.85)
    outcome = arena(TABLE, settings={"objective": "size"}, policy=strict).hold()
    assert chosen(outcome) == "bfloat16"


def test_no_objective_goes_round_the_quality(arena):
    table = with_runs(int8={"noise": FAR}, int8_weights={"noise": FAR})
    for objective in ("latency", "size"):
        outcome = arena(table, settings={"objective": objective}).hold()
        assert chosen(outcome) == "int8-mixed"
        assert "mean_cosine" in reasons(outcome)["int8"]


def test_what_is_larger_than_the_policy_allows_is_not_chosen(arena):
    small = replace(LOOSE, max_size_bytes=40)
    made = arena(policy=small, settings={"objective": "throughput"})
    outcome = made.hold()
    assert chosen(outcome) == "int8-mixed"
    assert "45 bytes are more than 40" in reasons(outcome)["bfloat16"]
    assert "bfloat16" not in made.judged  # known without embedding a text


# -------------------------------------------------------------------------- the workload


@pytest.mark.parametrize(
    ("workload", "kinds", "winner"),
    [
        ("queries", {"single"}, "int8"),
        ("documents", {"batched"}, "bfloat16"),
        ("mixed", {"single", "batched"}, "bfloat16"),
    ],
)
def test_the_workload_is_what_is_timed_and_decides(arena, workload, kinds, winner):
    table = with_runs(bfloat16={"single_ms": 7, "batched_ms": 30})
    made = arena(table, settings={"workload": workload})
    outcome = made.hold()
    assert {one.kind for one in made.timed} == kinds
    assert chosen(outcome) == winner
    names = {one.workload for c in outcome.candidates for one in c.latency}
    assert names == {f"mix-{kind}" for kind in kinds}


def test_an_objective_whose_mix_is_not_timed_takes_the_one_that_is(arena):
    outcome = arena(settings={"workload": "documents", "objective": "latency"}).hold()
    assert chosen(outcome) == "bfloat16"


def test_lengths_are_those_of_queries_and_documents(arena):
    made = arena()
    made.hold()
    lengths = {one.name: set(one.tokens.lengths.tolist()) for one in made.timed}
    assert max(lengths[MIX_SINGLE]) < 10 <= min(lengths[MIX_BATCHED])


def test_texts_of_the_user_s_own_are_timed_alone_and_in_batches(arena):
    own = tokens_of([40 + i for i in range(12)], first_id=5000)
    made = arena(workload=own, settings={"workload": "service.txt"})
    made.hold()
    assert {one.name for one in made.timed} == {MIX_SINGLE, MIX_BATCHED}
    assert all(one.tokens.sha256 == own.sha256 for one in made.timed)


# ---------------------------------------------------------------------------- the budget

SPENT = "not tried: the search budget of 10 s was spent"


def test_without_a_budget_everything_is_compiled(arena):
    made = arena(compile_s=1e6)
    made.hold()
    assert sorted(made.compiled) == sorted(TABLE)


def test_compilation_stops_when_the_budget_is_spent(arena):
    made = arena(compile_s=4.0, settings={"search_budget_s": 10.0})
    outcome = made.hold()
    assert made.compiled == ["float32", "int8", "bfloat16"]  # in the order of promise
    found = reasons(outcome)
    assert found["int8-mixed"] == found["int8-weights"] == SPENT
    assert [c.recipe.name for c in outcome.candidates] == list(TABLE)
    assert SPENT not in (found["float32"], found["int8"])


def test_baseline_and_the_most_promising_int8_are_always_tried(arena):
    made = arena(compile_s=1000.0, settings={"search_budget_s": 10.0})
    outcome = made.hold()
    assert made.compiled == ["float32", "int8"]
    assert set(made.judged) == {"float32", "int8"}
    assert chosen(outcome) == "int8"
    assert reasons(outcome)["bfloat16"] == SPENT


def test_judging_stops_when_the_budget_is_spent(arena):
    """Fastest first: bfloat16 (loses quality), int8; int8-mixed comes too late."""
    table = with_runs(bfloat16={"noise": FAR})
    made = arena(table, embed_s=6.0, settings={"search_budget_s": 10.0})
    outcome = made.hold()
    assert sorted(made.compiled) == sorted(TABLE)
    judged = list(dict.fromkeys(made.judged))
    assert judged == ["bfloat16", "int8", "float32"]
    assert reasons(outcome)["int8-mixed"] == SPENT
    assert chosen(outcome) == "int8"
    unlimited = arena(table, embed_s=6.0, settings={"seed": 1})
    unlimited.hold()
    assert "int8-mixed" in unlimited.judged


def test_what_lies_in_the_cache_costs_nothing(arena):
    """A second run goes on where the first one's budget ended."""
    settings = {"search_budget_s": 10.0}
    first = arena(compile_s=4.0, settings=settings)
    first.hold()
    second = arena(compile_s=4.0, settings=settings)
    outcome = second.hold()
    assert second.compiled == ["int8-mixed", "int8-weights"]
    assert SPENT not in reasons(outcome).values()


def test_a_forced_recipe_knows_no_budget(arena):
    settings = {"search_budget_s": 1.0, "precision": "int8-weights"}
    made = arena(compile_s=1000.0, settings=settings)
    outcome = made.hold()
    assert chosen(outcome) == "int8-weights"
    assert SPENT.replace("10", "1") not in reasons(outcome).values()


# ----------------------------------------------------------------------------- the front


# ------------------------------------------------------------ recipes that wait for a failure


WAITING = {
    "quantizers": {"int8-mixed": "qdq", "int8-weights": "nncf_weight_only"},
    "superseded": ("int8",),
}


def test_a_superseded_recipe_is_not_built_while_a_static_one_keeps_the_quality(arena):
    held = arena(**WAITING)
    outcome = held.hold()
    assert "int8" not in held.compiled
    assert "lose less" in reasons(outcome)["int8"]
    assert next(one for one in outcome.candidates if one.recipe.name == "int8").status == "dropped"


def test_it_comes_in_where_every_static_recipe_loses_too_much(arena):
    held = arena(with_runs(int8_mixed={"noise": FAR}), **WAITING)
    outcome = held.hold()
    assert held.compiled.count("int8") == 1
    assert held.compiled.count("float32") == 1, "what was built is not built again"
    assert sorted(reasons(outcome)) == sorted(TABLE)
    latency = arena(
        with_runs(int8_mixed={"noise": FAR}), settings={"objective": "latency"}, **WAITING
    ).hold()
    assert chosen(latency) == "int8"


def test_a_static_recipe_that_is_too_slow_to_be_judged_calls_for_nothing(arena):
    slow = with_runs(int8_mixed={"single_ms": 40, "batched_ms": 400})
    held = arena(slow, **WAITING)
    held.hold()
    assert "int8" not in held.compiled


def test_the_front_and_who_is_dominated(arena):
    table = with_runs(
        bfloat16={"single_ms": 5, "batched_ms": 50, "noise": 0.02},
        int8={"single_ms": 5, "batched_ms": 45, "noise": 0.08},
        int8_mixed={"single_ms": 5.2, "batched_ms": 52, "noise": 0.1},
    )
    outcome = arena(table).hold()
    front = {c.recipe.name for c in outcome.candidates if c.on_front}
    assert front == {"float32", "bfloat16", "int8"}
    assert "dominated by bfloat16" in reasons(outcome)["int8-mixed"]
    assert "not judged" in reasons(outcome)["int8-weights"]
    assert "dominated" not in reasons(outcome)["int8-weights"]


# ------------------------------------------------------------------------ this machine's turn


def test_compiling_for_another_device_waits_for_this_machine_s_turn(arena):
    """Somebody else is timed here: nothing is compiled before that has ended."""
    turns, timing, ended = Turns(), threading.Event(), threading.Event()
    made = arena(turns=turns)

    made_while: list[str] = []

    def hold_clock():
        with turns.here():
            timing.set()
            ended.wait(0.5)
            made_while.extend(made.compiled)

    other = threading.Thread(target=hold_clock)
    other.start()
    assert timing.wait(20)
    made.hold()
    other.join()
    assert made_while == []
    assert made.compiled
