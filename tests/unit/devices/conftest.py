from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from targets.contract import RunPlan, TokenSequences
from targets.devices.client import RunnerClient
from targets.devices.local import LocalDevice

ADAPTER = Path(__file__).with_name("numpy_adapter.py")
PAD_ID = 1
DIM = 6


@pytest.fixture(scope="session")
def table_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model for the numpy adapter: 1024 token vectors."""
    path = tmp_path_factory.mktemp("model") / "table.npy"
    np.save(path, np.random.default_rng(7).normal(size=(1024, DIM)).astype(np.float32))
    return path


@pytest.fixture
def make_plan(table_file: Path) -> Callable[..., RunPlan]:
    def make(**changes) -> RunPlan:
        options = changes.pop("options", {})
        plan = RunPlan(
            adapter=ADAPTER,
            model=table_file,
            inputs=("input_ids", "attention_mask", "token_type_ids"),
            output="sentence_embedding",
            pad_token_id=PAD_ID,
            embedding_dim=DIM,
            max_seq_length=40,
            options=options,
            length_multiple=16,
            max_batch_tokens=96,
        )
        return replace(plan, **changes)

    return make


@pytest.fixture
def start(make_plan: Callable[..., RunPlan]) -> Iterator[Callable[..., RunnerClient]]:
    """Start a runner on the numpy adapter; closed behind the test."""
    started: list[RunnerClient] = []

    def start_one(num_threads: int = 1, device: LocalDevice | None = None, **plan) -> RunnerClient:
        started.append((device or LocalDevice()).start(make_plan(**plan), num_threads))
        return started[-1]

    yield start_one
    for runner in started:
        runner.close()


@pytest.fixture
def texts() -> TokenSequences:
    """Thirty texts of 2 to 40 tokens; ids 5 to 999."""
    rng = np.random.default_rng(3)
    lengths = rng.integers(2, 41, 30)
    return TokenSequences.from_lists([rng.integers(5, 1000, n) for n in lengths], PAD_ID)


@pytest.fixture
def expected(table_file: Path) -> Callable[[TokenSequences], np.ndarray]:
    """What the numpy adapter must answer, computed text by text."""
    table = np.load(table_file, allow_pickle=False)
    return lambda tokens: np.stack([table[ids].mean(axis=0) for ids in tokens])


@pytest.fixture
def read_log() -> Callable[[Path], list[dict]]:
    return lambda path: [json.loads(line) for line in path.read_text().splitlines()]
