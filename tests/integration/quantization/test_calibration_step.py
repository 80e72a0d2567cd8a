"""The calibration table bound to the cache."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import pytest
from contract.tiny_graph import PAD_ID, make_tokens, write_tiny_graph

from exporter.config import Settings
from exporter.deliver.cache import Cache
from exporter.optimize.calibration_state import Checkpoint
from exporter.progress import SilentReporter
from exporter.steps.calibration import calibration_table
from exporter.steps.workspace import Workspace
from exporter.values import EncoderSpec
from targets.contract import TokenSequences
from targets.quantization.table import CalibrationTable


class StoppedError(Exception):
    """Stands for a crash in the middle of a pass."""


class StoppingReporter(SilentReporter):
    """Breaks the pass off behind a number of texts."""

    def __init__(self, at: int) -> None:
        self._at = at

    @contextmanager
    def step(self, title):
        def progress(done: int, total: int | None = None) -> None:
            if done >= self._at:
                raise StoppedError

        yield progress


class CountingReporter(SilentReporter):
    """Keeps what was said and how far the pass was at each call."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.done: list[int] = []

    @contextmanager
    def step(self, title):
        yield lambda done, _=None: self.done.append(done)

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def graph(tmp_path):
    folder = tmp_path / "graph"
    folder.mkdir()
    return write_tiny_graph(folder).artifact


@pytest.fixture
def spec(tmp_path) -> EncoderSpec:
    return EncoderSpec(
        model_id="tiny",
        source="local",
        directory=tmp_path,
        revision=None,
        library="transformers",
        architecture="BertModel",
        model_type="bert",
        pooling="mean",
        normalize=True,
        modules=(),
        embedding_dim=32,
        max_seq_length=64,
        weights_sha256="w",
        tokenizer_sha256="t",
    )


@pytest.fixture
def workspace(tmp_path):
    def build(reporter) -> Workspace:
        cache = Cache(tmp_path / "cache", note=reporter.note)
        return Workspace(settings=Settings(threads=1), cache=cache, reporter=reporter)

    return build


def test_the_same_table_is_made_once(graph, spec, workspace):
    first, second = CountingReporter(), CountingReporter()
    path = calibration_table(workspace(first), spec, graph, make_tokens(), gram=False)
    again = calibration_table(workspace(second), spec, graph, make_tokens(), gram=False)
    assert path == again
    assert first.done
    assert second.done == []
    CalibrationTable.load(path).require(
        graph_sha256=graph.sha256, tokenizer_sha256="t", corpus_sha256=make_tokens().sha256
    )


@pytest.mark.parametrize("what", ["texts", "graph", "tokenizer", "gram"])
def test_anything_else_is_another_table(graph, spec, workspace, what):
    work = workspace(SilentReporter())
    path = calibration_table(work, spec, graph, make_tokens(), gram=False)
    other = calibration_table(
        work,
        replace(spec, tokenizer_sha256="u") if what == "tokenizer" else spec,
        replace(graph, sha256="other") if what == "graph" else graph,
        make_tokens(seed=8) if what == "texts" else make_tokens(),
        gram=what == "gram",
    )
    assert other != path
    assert (CalibrationTable.load(other).tensors.popitem()[1].gram is not None) == (what == "gram")


def test_a_broken_off_pass_goes_on_in_the_next_run(graph, spec, workspace, monkeypatch, tmp_path):
    monkeypatch.setattr(Checkpoint, "save_if_due", Checkpoint.save)
    tokens = TokenSequences.from_lists(list(make_tokens(24)) * 40, PAD_ID)
    with pytest.raises(StoppedError):
        calibration_table(workspace(StoppingReporter(500)), spec, graph, tokens, gram=False)
    reporter = CountingReporter()
    path = calibration_table(workspace(reporter), spec, graph, tokens, gram=False)
    assert reporter.done[0] > 500
    assert reporter.notes == []
    assert CalibrationTable.load(path).num_texts == len(tokens)
    assert list((tmp_path / "cache" / "unfinished").iterdir()) == []
