"""The tiny encoder of the contract tests, its texts, and requests to build it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from contract.tiny_graph import TinyGraph, make_tokens, write_tiny_graph
from contract.tiny_plans import write_plans

from targets.contract import CompileRequest, Recipe
from targets.registry import open_device


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyGraph:
    pytest.importorskip("onnxruntime", reason="pip install 'embedding-exporter[onnxruntime]'")
    return write_tiny_graph(tmp_path_factory.mktemp("tiny-onnxruntime"))


@pytest.fixture(scope="session")
def request_for(
    tiny: TinyGraph, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Recipe], CompileRequest]:
    """Return a request to build a recipe of the tiny encoder into a folder of its own."""
    tokens = make_tokens()
    plans: dict[str, Path] = {}

    def make(recipe: Recipe) -> CompileRequest:
        output = tmp_path_factory.mktemp("built")
        if recipe.scheme is not None and repr(recipe.scheme) not in plans:
            path = output.parent / f"plans-{len(plans)}.npz"
            plans[repr(recipe.scheme)] = write_plans(path, tiny.artifact, tokens, recipe.scheme)
        return CompileRequest(
            graph=tiny.artifact,
            recipe=recipe,
            calibration=tokens,
            plans=None if recipe.scheme is None else plans[repr(recipe.scheme)],
            hardware=open_device("local").hardware(),
            output_dir=output,
            num_threads=1,
            seed=0,
        )

    return make
