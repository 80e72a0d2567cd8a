"""How `--workload` becomes tokens, cached by what the file holds."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from arena import SUMMARY, tokens_of

import exporter.source.tokenizer
from exporter.config import Settings
from exporter.deliver.cache import Cache
from exporter.progress import SilentReporter
from exporter.steps import texts as steps_texts
from exporter.steps.texts import Texts, prepare_texts
from exporter.steps.workspace import Workspace
from targets.contract import TokenSequences
from targets.errors import ExitCode, TextsError

SPEC = SimpleNamespace(tokenizer_sha256="1" * 64, max_seq_length=8, default_prompt="")


class Words:
    """A tokenizer: one token a word; counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def encode(self, texts) -> TokenSequences:
        self.asked += 1
        return TokenSequences.from_lists([[len(w) for w in t.split()] for t in texts], 0)


@pytest.fixture
def words(monkeypatch) -> Words:
    tokenizer = Words()
    monkeypatch.setattr(exporter.source.tokenizer, "load_tokenizer", lambda spec: tokenizer)
    splits = Texts(
        calibration=tokens_of([3]), calibration_summary=SUMMARY, dev=None, test=SimpleNamespace()
    )
    monkeypatch.setattr(steps_texts, "_prepare_splits", lambda work, spec: splits)
    return tokenizer


@pytest.fixture
def prepare(tmp_path, words):
    def run(workload: str, **settings) -> Texts:
        work = Workspace(
            settings=Settings(workload=workload, **settings),
            cache=Cache(tmp_path / "cache"),
            reporter=SilentReporter(),
        )
        return prepare_texts(work, SPEC)

    return run


@pytest.mark.parametrize("name", ["queries", "documents", "mixed"])
def test_the_evaluation_s_texts_need_no_file(prepare, words, name):
    found = prepare(name)
    assert found.workload is None
    assert found.workload_summary is None
    assert words.asked == 0


def test_a_file_s_tokens_and_where_they_are_from(prepare, tmp_path):
    file = tmp_path / "service.txt"
    file.write_text("one two three\nfour\n")
    found = prepare(str(file))
    assert found.workload.lengths.tolist() == [3, 1]
    assert (found.workload_summary.name, found.workload_summary.num_texts) == ("service", 2)
    assert found.workload_summary.origin == str(file)


def test_the_cache_goes_by_content(prepare, words, tmp_path):
    file = tmp_path / "service.txt"
    file.write_text("one two\n")
    first, again = prepare(str(file)), prepare(str(file))
    assert first.workload.sha256 == again.workload.sha256
    assert words.asked == 1
    file.write_text("one two three\n")
    assert prepare(str(file)).workload.lengths.tolist() == [3]
    assert words.asked == 2


def test_a_misspelled_word_names_the_nearest(prepare):
    with pytest.raises(TextsError, match="--workload query") as raised:
        prepare("query")
    assert "queries" in raised.value.hint
    assert raised.value.exit_code == ExitCode.USAGE


def test_a_missing_file_is_named(prepare, tmp_path):
    (tmp_path / "service.txt").write_text("one\n")
    with pytest.raises(TextsError) as raised:
        prepare(str(tmp_path / "servic.txt"))
    assert "servic.txt does not exist" in raised.value.why
    assert "service.txt" in raised.value.hint


def test_an_empty_file_is_named_and_leaves_nothing_in_the_cache(prepare, tmp_path):
    file = tmp_path / "service.txt"
    file.write_text("\n")
    for _ in range(2):
        with pytest.raises(TextsError, match=r"service\.txt has no texts"):
            prepare(str(file))
