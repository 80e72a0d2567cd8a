"""Recipes that need no calibration table are compiled while it is being made.

Finding int8 forms of layers keeps one core busy, so does a compiler. What is compiled here is only
put into the cache; the tournament finds it there, and says of a failure what there is to say.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

from exporter.steps.building import Ingredients, build_artifact
from exporter.steps.compilers import compilers
from exporter.steps.execution import Stand
from exporter.steps.quantization import is_superseded
from exporter.steps.workers import block_interrupts, end_children
from exporter.steps.workspace import Workspace
from targets.contract import Recipe
from targets.errors import ExporterError
from targets.hardware.precisions import is_backed


@contextmanager
def compiled_meanwhile(
    work: Workspace,
    stand: Stand,
    given: Ingredients,
    recipes: Sequence[Recipe],
    after: Callable[[], object] = lambda: None,
) -> Iterator[None]:
    """Compile in the background for as long as the body takes, and until all is compiled.

    Args:
        work: the run's surroundings.
        stand: where the artifacts will run.
        given: what they are made of.
        recipes: the target's candidates; those made of calibrated layers are passed over.
        after: waits for what keeps the other core busy.
    """
    settings = work.settings
    waiting = [
        recipe
        for recipe in recipes
        if recipe.quantizer != "qdq"
        and is_backed(recipe, stand.hardware)
        and not is_superseded(recipe)
    ]
    one_core = stand.build_threads < 2
    if settings.precision != "auto" or settings.search_budget_s or settings.layer_precision:
        waiting = []
    if one_core or not waiting or len(waiting) == len(recipes):
        yield
        return
    # The longest first: those that calibrate by themselves.
    waiting.sort(key=lambda recipe: recipe.quantizer != "nncf_ptq")
    ended = threading.Event()
    with (
        compilers(stand.target.spec.name, 1) as compile_,
        ThreadPoolExecutor(1, initializer=block_interrupts) as threads,
    ):

        def build(recipe: Recipe) -> None:
            after()
            if ended.is_set():
                return
            with suppress(ExporterError):
                build_artifact(work, stand, given, recipe, compile_)

        futures = [threads.submit(build, recipe) for recipe in waiting]
        try:
            yield
            for future in futures:
                future.result()
        except BaseException:
            ended.set()
            threads.shutdown(wait=False, cancel_futures=True)
            end_children()
            raise
