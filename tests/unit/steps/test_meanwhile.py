"""What is compiled while layers are calibrated."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import replace

import pytest
from arena import GRAPH, Arena, Runs, make_texts, recipe

from exporter.steps import meanwhile
from exporter.steps.building import Ingredients
from exporter.steps.meanwhile import compiled_meanwhile
from targets.errors import CompileError

LONG_S = 20.0
RECIPES = (
    recipe("float32"),
    recipe("int8-slow", "nncf_ptq"),
    recipe("int8-static", "qdq"),
    replace(recipe("int8", "nncf_ptq"), float_precision="bfloat16"),
    replace(recipe("bfloat16"), requires=("a feature that nobody has",)),
)


@pytest.fixture
def scene(tmp_path, monkeypatch):
    """A run with two cores; what is compiled is noted by the arena."""

    def make(build_threads=2, **settings):
        arena = Arena(
            folder=tmp_path, table={one.name: Runs() for one in RECIPES}, settings=settings
        )
        monkeypatch.setattr(meanwhile, "compilers", arena.compilers)
        stand = replace(arena._stand(), build_threads=build_threads)
        given = Ingredients(graph=GRAPH, calibration=make_texts(30).calibration)
        return arena, (arena._work(), stand, given)

    return make


def test_what_needs_no_table_is_compiled_the_longest_first(scene):
    arena, surroundings = scene()
    with compiled_meanwhile(*surroundings, RECIPES):
        pass
    assert arena.compiled == ["int8-slow", "float32"]


def test_it_waits_for_what_keeps_the_core_busy(scene):
    arena, surroundings = scene()
    compiled_before = []
    with compiled_meanwhile(
        *surroundings, RECIPES, after=lambda: compiled_before.append(list(arena.compiled))
    ):
        pass
    assert compiled_before[0] == [], "compiled without waiting"
    assert arena.compiled == ["int8-slow", "float32"]


def test_it_goes_on_beside_the_body(scene, monkeypatch):
    arena, surroundings = scene()
    begun = threading.Event()

    @contextmanager
    def compilers(name, number):
        def compile_(request):
            begun.set()
            return arena._compile(request)

        yield compile_

    monkeypatch.setattr(meanwhile, "compilers", compilers)
    with compiled_meanwhile(*surroundings, RECIPES):
        assert begun.wait(LONG_S), "nothing was compiled before the body ended"


def test_the_tournament_finds_it_in_the_cache(scene):
    arena, surroundings = scene()
    for _ in range(2):
        with compiled_meanwhile(*surroundings, RECIPES):
            pass
    assert len(arena.compiled) == 2


@pytest.mark.parametrize(
    "settings",
    [
        {"precision": "int8-static"},
        {"search_budget_s": 5.0},
        {"layer_precision": ("a=float32",)},
        {"build_threads": 1},
    ],
)
def test_nothing_is_compiled_that_may_not_be_wanted(scene, settings):
    arena, surroundings = scene(**settings)
    with compiled_meanwhile(*surroundings, RECIPES):
        pass
    assert arena.compiled == []


def test_nothing_without_layers_to_calibrate(scene):
    arena, surroundings = scene()
    with compiled_meanwhile(*surroundings, RECIPES[:2]):
        pass
    assert arena.compiled == []


def test_a_recipe_that_cannot_be_compiled_is_left_to_the_tournament(scene, monkeypatch):
    arena, surroundings = scene()

    @contextmanager
    def compilers(name, number):
        def compile_(request):
            if request.recipe.name == "int8-slow":
                raise CompileError("no")
            return arena._compile(request)

        yield compile_

    monkeypatch.setattr(meanwhile, "compilers", compilers)
    with compiled_meanwhile(*surroundings, RECIPES):
        pass
    assert arena.compiled == ["float32"]


def test_an_error_of_the_body_is_raised(scene):
    _, surroundings = scene()
    with pytest.raises(KeyboardInterrupt), compiled_meanwhile(*surroundings, RECIPES):
        raise KeyboardInterrupt


def test_nothing_is_begun_after_the_body_has_failed(scene):
    """What it waits for ends when the run does; a compiler must not start then."""
    arena, surroundings = scene()
    failed = threading.Event()

    class Ends:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            threading.Timer(0.2, failed.set).start()

    with (
        pytest.raises(KeyboardInterrupt),
        compiled_meanwhile(*surroundings, RECIPES, after=lambda: failed.wait(LONG_S)),
        Ends(),
    ):
        raise KeyboardInterrupt
    assert arena.compiled == []
