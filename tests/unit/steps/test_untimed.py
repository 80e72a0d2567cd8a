"""The choice where nothing can be timed."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from arena import LOOSE, Arena, Runs, embeddings_of, recipe, rows_of, tokens_of

from exporter.judge import Policy
from exporter.steps import untimed
from exporter.steps.contest import stability_of
from exporter.steps.execution import Bench
from exporter.steps.job import job_material
from exporter.steps.untimed import choose_untimed
from targets.errors import CompileError, ConfigError

TABLE = {
    "float32": Runs(size_bytes=90),
    "int8-first": Runs(noise=0.5, size_bytes=24, single_ms=1.0),
    "int8-second": Runs(noise=0.001, size_bytes=30),
    "int8-third": Runs(noise=0.001, size_bytes=20),
}


@pytest.fixture
def choose(tmp_path, monkeypatch):
    """Make the choice among recipes of a table: (statuses by name, the outcome, the arena)."""

    def make(table=TABLE, policy=LOOSE, prepares="", **settings):
        arena = Arena(folder=tmp_path, table=table, policy=policy, settings=settings)
        monkeypatch.setattr(untimed, "compilers", arena.compilers)
        recipes = [recipe(n, "nncf_ptq" if "int8" in n else "none") for n in table]
        stand = replace(arena._stand(), prepares=prepares)
        with Bench(arena._work(), stand) as bench:
            contest = arena.contest(bench)
            outcome = choose_untimed(contest, recipes, embeddings_of(contest.choosing))
        return {one.recipe.name: one for one in outcome.candidates}, outcome, arena

    return make


def test_the_first_in_the_order_of_promise_that_keeps_the_promise_is_taken(choose):
    results, outcome, arena = choose()
    assert outcome.chosen.recipe.name == "int8-second"
    assert "mean_cosine" in results["int8-first"].reason  # the most promising was judged and failed
    assert "comes after int8-second" in results["int8-third"].reason
    assert results["float32"].status == "dropped"
    assert arena.judged == ["int8-first", "int8-second"]


def test_what_comes_after_the_chosen_one_is_not_built(choose):
    results, _, arena = choose()
    assert sorted(arena.compiled) == ["float32", "int8-first", "int8-second"]
    assert "so it was not built; --precision int8-third" in results["int8-third"].reason
    assert results["int8-third"].size_bytes is None
    assert "not built" not in results["float32"].reason


def test_sizes_are_known_only_of_what_is_built(choose):
    _, _, arena = choose(objective="size")
    assert sorted(arena.compiled) == sorted(TABLE)


def test_nothing_is_ever_timed(choose):
    results, _, arena = choose()
    assert arena.timed == []
    assert all(one.latency == () for one in results.values())


def test_a_device_gets_the_company_that_int8_is_timed_beside(choose):
    """Where another machine will time it: the best float and FP32, built and not judged."""
    table = {"float32": Runs(), "half": Runs(), "int8-first": Runs(), "int8-second": Runs()}
    results, outcome, arena = choose(table, prepares="no GPU", precision="int8-second")
    assert outcome.chosen.recipe.name == "int8-second"
    assert (outcome.best_float.recipe.name, outcome.baseline.recipe.name) == ("half", "float32")
    assert sorted(arena.compiled) == ["float32", "half", "int8-second"]
    assert arena.judged == []
    assert results["half"].reason == "not judged here: the device times it beside int8-second"


def test_a_device_without_fp32_is_prepared_for_all_the_same(choose, monkeypatch):
    compile_ = Arena._compile

    def refuse(arena, request):
        if request.recipe.name == "float32":
            raise CompileError("no float32 here")
        return compile_(arena, request)

    monkeypatch.setattr(Arena, "_compile", refuse)
    table = {"float32": Runs(), "half": Runs(), "int8-first": Runs(noise=0.5)}
    results, outcome, _ = choose(table, prepares="no GPU")
    assert outcome.chosen.recipe.name == "half"
    assert outcome.baseline is outcome.chosen
    assert results["float32"].status == "failed"
    notes: list[str] = []
    reporter = SimpleNamespace(note=notes.append)
    assert job_material(SimpleNamespace(reporter=reporter), outcome, None, None) is None
    assert "no build job" in notes[0]
    with pytest.raises(CompileError, match="no float32 here"):
        choose(table)  # where it runs at once, FP32 must


def test_where_nothing_can_be_built_every_reason_is_told(choose, monkeypatch):
    def refuse(arena, request):
        raise CompileError(f"not {request.recipe.name}")

    monkeypatch.setattr(Arena, "_compile", refuse)
    with pytest.raises(CompileError, match="no recipe can be built") as caught:
        choose(prepares="no GPU")
    assert "not int8-third" in caught.value.why


def test_nobody_times_company_under_emulation(choose):
    results, outcome, arena = choose(precision="int8-third")
    assert arena.compiled == ["int8-third"]
    assert list(results) == ["int8-third"]
    assert outcome.best_float is outcome.baseline is outcome.chosen


def test_the_best_float_is_the_target_s_most_promising(choose):
    table = {"float32": Runs(), "half": Runs(), "int8-first": Runs(noise=0.001)}
    _, outcome, _ = choose(table, prepares="no GPU")
    assert [one.recipe.name for one in (outcome.chosen, outcome.best_float, outcome.baseline)] == [
        "int8-first",
        "half",
        "float32",
    ]


def test_for_size_the_smallest_comes_first(choose):
    _, outcome, arena = choose(objective="size")
    assert outcome.chosen.recipe.name == "int8-third"
    assert arena.judged == ["int8-third"]


def test_float32_is_taken_when_no_int8_keeps_the_promise(choose):
    table = {"float32": Runs(), "int8-first": Runs(noise=0.5)}
    _, outcome, _ = choose(table)
    assert outcome.chosen.recipe.name == "float32"


def test_what_is_too_large_is_not_embedded(choose):
    limit = Policy(**{**vars_of(LOOSE), "max_size_bytes": 25})
    results, outcome, arena = choose(policy=limit)
    assert outcome.chosen.recipe.name == "int8-third"
    assert "size" in results["int8-second"].reason
    assert arena.judged == ["int8-first", "int8-third"]


def test_where_nothing_passes_the_baseline_goes_on_to_be_certified(choose):
    limit = Policy(**{**vars_of(LOOSE), "max_size_bytes": 1})
    results, outcome, _ = choose(policy=limit)
    assert outcome.chosen.recipe.name == "float32"
    assert results["float32"].reason.startswith("nothing keeps the promised quality; size")


def test_a_candidate_that_does_not_run_is_passed_over(choose):
    table = {**TABLE, "int8-second": Runs(crashes=True)}
    results, outcome, _ = choose(table)
    assert outcome.chosen.recipe.name == "int8-third"
    assert (results["int8-second"].status, "it died" in results["int8-second"].reason) == (
        "failed",
        True,
    )


def test_a_forced_recipe_is_built_alone_and_taken_unjudged(choose):
    results, outcome, arena = choose(precision="int8-first")
    assert outcome.chosen.recipe.name == "int8-first"
    assert list(results) == arena.compiled == ["int8-first"]
    with pytest.raises(ConfigError, match="no such recipe"):
        choose(precision="int3")


def vars_of(policy: Policy) -> dict[str, object]:
    return {name: getattr(policy, name) for name in policy.__dataclass_fields__}


@pytest.mark.parametrize(("measures", "longest"), [(True, 170), (False, 48)])
def test_stability_is_tried_on_short_texts_where_a_text_takes_seconds(measures, longest):
    seen = []

    def embed(built, sample, ways):
        seen.append(sample)
        return {way: rows_of(sample) for way in ways}

    contest = SimpleNamespace(
        bench=SimpleNamespace(embed_in_company=embed),
        stand=SimpleNamespace(device=SimpleNamespace(measures_latency=measures)),
    )
    tokens = tokens_of(range(3, 171))
    stability_of(contest, None, tokens, 8)
    (sample,) = seen
    assert len(sample) == 8
    assert longest - 12 <= max(sample.lengths) <= longest
    stability_of(contest, None, tokens_of([100, 120, 140]), 2)
    assert max(seen[1].lengths) == (140 if measures else 120), "the shortest there are"
