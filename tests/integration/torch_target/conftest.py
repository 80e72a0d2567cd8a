"""The tiny encoder of the contract tests as a PyTorch model, built as recipes say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from contract.tiny_graph import INPUTS, TinyGraph, make_tokens, write_tiny_graph
from contract.tiny_source import write_tiny_source

from targets.contract import CompiledArtifact, CompileRequest, Recipe, SourceModel
from targets.pytorch import session
from targets.pytorch.target import TorchTarget
from targets.registry import open_device

TARGET = TorchTarget()


@dataclass(frozen=True)
class Plan:
    """What a session reads of a plan."""

    options: dict[str, str]
    inputs: tuple[str, ...] = INPUTS
    num_threads: int = 1


@dataclass(frozen=True)
class Bench:
    """A tiny encoder and ways to build and run it."""

    graph: TinyGraph
    source: SourceModel
    folder: Path

    def request(self, recipe: Recipe) -> CompileRequest:
        output = self.folder / f"built-{len(list(self.folder.iterdir()))}"
        output.mkdir()
        return CompileRequest(
            graph=self.graph.artifact,
            recipe=recipe,
            calibration=make_tokens(),
            source=self.source,
            hardware=open_device("local").hardware(),
            output_dir=output,
            num_threads=1,
            seed=0,
        )

    def build(self, recipe: Recipe) -> CompiledArtifact:
        return TARGET.compile(self.request(recipe))

    def open(self, artifact: CompiledArtifact, **options: str) -> session.TorchSession:
        entry = artifact.directory / artifact.files[0].path
        return session.open_session(entry, Plan(options))

    def embed(self, artifact: CompiledArtifact, **options: str) -> np.ndarray:
        loaded = self.open(artifact, **options)
        return np.concatenate([loaded.run(self.inputs(ids)) for ids in make_tokens()])

    def inputs(self, ids: np.ndarray) -> dict[str, np.ndarray]:
        rows = np.asarray(ids, np.int64)[None]
        return dict(zip(INPUTS, (rows, np.ones_like(rows), np.zeros_like(rows)), strict=True))

    def expected(self) -> np.ndarray:
        return self.graph.embed(make_tokens())


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    pytest.importorskip("torchao", reason="pip install 'embedding-exporter[torch]'")
    pytest.importorskip("bitsandbytes", reason="pip install 'embedding-exporter[torch]'")
    folder = tmp_path_factory.mktemp("tiny-torch")
    graph = write_tiny_graph(folder)
    source = write_tiny_source(folder / "source", graph.weights)
    return Bench(graph=graph, source=source, folder=folder)


@pytest.fixture(scope="session")
def recipes(bench: Bench) -> Callable[[str], Recipe]:
    known = {one.name: one for one in TARGET.candidates(None, open_device("local").hardware())}
    return known.__getitem__
