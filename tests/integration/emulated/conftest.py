"""A tiny BERT and the real MiniLM as plans for ONNX Runtime, and the emulated devices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from contract.tiny_graph import (
    HIDDEN,
    INPUTS,
    MAX_LENGTH,
    PAD_ID,
    TinyGraph,
    build_model,
    make_weights,
    write_tiny_graph,
)
from emulated_plans import make_plan

from targets.contract import RunPlan, TokenSequences
from targets.devices.emulated import EmulatedDevice, emulated_cpu

VOCABULARY = 1024  # a runner's first call uses ids up to 900


@pytest.fixture(scope="session")
def emulate(emulation: Callable[[str], Path]) -> Callable[[str], EmulatedDevice]:
    """Open an emulated device; skips where its userland cannot be set up."""

    def open_one(cpu: str) -> EmulatedDevice:
        row, _ = emulated_cpu(cpu)
        return EmulatedDevice(cpu, root=emulation(row.architecture))

    return open_one


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyGraph:
    written = write_tiny_graph(tmp_path_factory.mktemp("tiny"))
    weights = make_weights(0)
    table = np.random.default_rng(5).normal(0, 0.1, (VOCABULARY, HIDDEN))
    weights["embeddings.word_embeddings.weight"] = table.astype(np.float32)
    onnx.save(build_model(weights), written.artifact.path)
    return TinyGraph(artifact=written.artifact, weights=weights)


@pytest.fixture
def tiny_plan(tiny: TinyGraph) -> RunPlan:
    return make_plan(tiny.artifact.path, INPUTS, HIDDEN, MAX_LENGTH)


@pytest.fixture
def texts() -> TokenSequences:
    """Six texts of 2 to 40 tokens."""
    rng = np.random.default_rng(3)
    lengths = (2, 7, 9, 16, 23, 40)
    return TokenSequences.from_lists([rng.integers(5, VOCABULARY, n) for n in lengths], PAD_ID)
