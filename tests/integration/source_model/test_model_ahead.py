"""FP32's embeddings of the evaluation, made by a second process beside the export."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import BERT, TEXTS

from exporter.config import Settings
from exporter.deliver.cache import Cache
from exporter.progress import SilentReporter
from exporter.source.resolve import resolve_encoder
from exporter.source.tokenizer import load_tokenizer
from exporter.steps import ahead
from exporter.steps.ahead import embedded_ahead
from exporter.steps.source import Source
from exporter.steps.texts import TokenizedEvaluation
from exporter.steps.workspace import Workspace
from exporter.values import EvaluationSet
from targets.contract import TokenSequences
from targets.errors import NonFiniteError

LONG_S = 60.0


@pytest.fixture(scope="module")
def folder(make_model) -> Path:
    return make_model(BERT)


@pytest.fixture(scope="module")
def tokens(folder) -> TokenSequences:
    return load_tokenizer(resolve_encoder(str(folder))).encode(TEXTS)


@pytest.fixture
def source(folder, tmp_path) -> Source:
    work = Workspace(settings=Settings(), cache=Cache(tmp_path), reporter=SilentReporter())
    return Source(work, resolve_encoder(str(folder)))


@pytest.fixture(scope="module")
def evaluation(tokens) -> TokenizedEvaluation:
    texts = EvaluationSet(
        name="made",
        origin="made",
        split="dev",
        query_ids=("q",),
        queries=TEXTS[:1],
        document_ids=tuple(f"d{i}" for i in range(1, len(TEXTS))),
        documents=TEXTS[1:],
        sha256="0" * 64,
    )
    return TokenizedEvaluation(
        texts=texts, queries=tokens.select([0]), documents=tokens.select(range(1, len(TEXTS)))
    )


def forbid_this_process(source: Source, monkeypatch) -> None:
    def embed(*_):
        raise AssertionError("embedded in this process")

    monkeypatch.setattr(source, "_embed", embed)


def test_it_is_made_in_another_process_and_is_the_same(source, tokens, evaluation, monkeypatch):
    expected = source.encoder.embed(evaluation.documents)
    forbid_this_process(source, monkeypatch)
    with embedded_ahead(source, tokens, [evaluation], 2) as started:
        assert started.torch_threads == 1
        started.wait()
        assert not source.lacks_reference(evaluation)
    found = source.reference(evaluation)
    assert found.queries.shape == (1, expected.shape[1])
    np.testing.assert_allclose(found.documents, expected, atol=1e-6)


def test_pytorch_has_the_threads_it_is_left_only_while_it_exports(source, tokens, monkeypatch):
    before, seen = torch.get_num_threads(), []
    forward = type(source.encoder).forward

    def noted(self, *batch):
        seen.append(torch.get_num_threads())
        return forward(self, *batch)

    monkeypatch.setattr(type(source.encoder), "forward", noted)
    source.graph(tokens, before + 1)
    assert set(seen) == {before + 1}
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("why", ["one core", "graph there", "embedded before"])
def test_nothing_is_started_that_gains_nothing(source, tokens, evaluation, monkeypatch, why):
    if why == "graph there":
        source.graph(tokens)
    if why == "embedded before":
        source.reference(evaluation)

    def start(folder):
        raise AssertionError("a process was started")

    monkeypatch.setattr(ahead, "Worker", start)
    with embedded_ahead(source, tokens, [evaluation], 1 if why == "one core" else 2) as started:
        assert started.torch_threads is None
        started.wait()
    assert source.lacks_reference(evaluation) == (why != "embedded before")


def die(*_):
    os._exit(9)


def refuse(*_):
    raise NonFiniteError("text 3 gives NaN")


@pytest.mark.parametrize("end", [die, refuse])
def test_a_failure_is_left_to_who_needs_it(source, tokens, evaluation, monkeypatch, end):
    monkeypatch.setattr(ahead, "_embed", end)
    with embedded_ahead(source, tokens, [evaluation], 2) as started:
        started.wait()
    assert source.lacks_reference(evaluation)
    assert len(source.reference(evaluation).documents) == len(TEXTS) - 1


def test_an_interrupt_ends_the_process(source, tokens, evaluation):
    with (
        pytest.raises(KeyboardInterrupt),
        embedded_ahead(source, tokens, [evaluation], 2),
    ):
        raise KeyboardInterrupt
    for child in multiprocessing.active_children():
        child.join(LONG_S)
    assert not multiprocessing.active_children()
    assert source.lacks_reference(evaluation), "it was let finish"
