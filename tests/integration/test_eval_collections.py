"""The texts that every installation has: Python's docstrings and the built-in texts."""

from __future__ import annotations

import pytest

from exporter.source.builtin import NUM_PAIRS, builtin_evaluation
from exporter.source.corpus import load_calibration, load_evaluation
from exporter.source.splits import assert_disjoint, evaluation_texts, split_evaluation
from exporter.source.text_lines import normalize_text
from exporter.values import EvaluationSet, EvaluationSplits


@pytest.fixture(scope="module")
def docstrings() -> EvaluationSet:
    return builtin_evaluation()


@pytest.fixture(scope="module")
def splits() -> EvaluationSplits:
    return split_evaluation(load_evaluation(None), seed=0, choose=True)


def test_the_standard_library_gives_enough_pairs(docstrings: EvaluationSet) -> None:
    assert len(docstrings.queries) == len(docstrings.documents) == NUM_PAIRS
    assert docstrings.judgements is not None
    assert len(docstrings.judgements) == NUM_PAIRS


def test_no_text_comes_twice(docstrings: EvaluationSet) -> None:
    keys = {normalize_text(text) for text in docstrings.queries + docstrings.documents}
    assert len(keys) == 2 * NUM_PAIRS


def test_documents_are_of_sane_length(docstrings: EvaluationSet) -> None:
    words = [len(text.split()) for text in docstrings.documents]
    assert min(words) >= 8
    assert max(words) <= 80
    assert 25 < sum(words) / len(words) < 50


def test_extraction_is_repeatable(docstrings: EvaluationSet) -> None:
    assert builtin_evaluation().sha256 == docstrings.sha256


def test_split_resolves_one_percent_of_recall(splits: EvaluationSplits) -> None:
    assert splits.dev is not None
    assert len(splits.dev.queries) == 250
    assert len(splits.test.queries) == NUM_PAIRS - 250 >= 1000
    assert not splits.shared_documents


def test_built_in_calibration_shares_nothing_with_it(splits: EvaluationSplits) -> None:
    calibration = load_calibration(None, num_samples=300, seed=0, exclude=evaluation_texts(splits))
    assert len(calibration.texts) == 300
    assert_disjoint(calibration, splits)


def test_built_in_calibration_leaves_evaluation_texts_out() -> None:
    everything = load_calibration(None, num_samples=10_000, seed=0)
    taken = {normalize_text(text) for text in everything.texts[:50]}
    rest = load_calibration(None, num_samples=10_000, seed=0, exclude=taken)
    assert rest.texts == everything.texts[50:]
