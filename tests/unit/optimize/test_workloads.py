"""Timed workloads."""

from __future__ import annotations

import numpy as np
import pytest

from exporter.optimize.workloads import (
    MIX_TEXTS,
    SHAPES,
    mix_workloads,
    shape_workloads,
    workload_of,
)
from targets.contract import TokenSequences
from targets.lengths import spread_by_length


def tokens_of_lengths(lengths) -> TokenSequences:
    return TokenSequences.from_lists([[7] * n for n in lengths], pad_token_id=0)


def test_shapes_longer_than_the_model_are_left_out():
    assert len(shape_workloads(512)) == len(SHAPES)
    assert {w.name for w in shape_workloads(64)} == {"1x16", "1x32"}


@pytest.mark.parametrize("num_texts", [1, 5, MIX_TEXTS])
def test_a_small_set_is_taken_whole(num_texts):
    tokens = tokens_of_lengths(range(1, num_texts + 1))
    assert spread_by_length(tokens, MIX_TEXTS) is tokens


def test_the_sample_has_the_lengths_of_the_whole():
    rng = np.random.default_rng(0)
    lengths = rng.lognormal(3.3, 0.8, 2000).astype(int) + 1
    sample = spread_by_length(tokens_of_lengths(lengths), MIX_TEXTS).lengths
    for q in (0.1, 0.5, 0.9):
        assert np.quantile(sample, q) == pytest.approx(np.quantile(lengths, q), rel=0.12)
    assert sample.mean() == pytest.approx(lengths.mean(), rel=0.1)


def test_the_sample_is_not_sorted_by_length():
    rng = np.random.default_rng(0)
    sample = spread_by_length(tokens_of_lengths(rng.integers(1, 200, 500)), MIX_TEXTS).lengths
    assert (np.diff(sample) < 0).any()


def test_mixes_are_of_requests_alone_and_documents_in_bulk():
    single, batched = mix_workloads(tokens_of_lengths([3, 4]), tokens_of_lengths([9] * 100))
    assert (single.kind, single.texts_per_pass) == ("single", 2)
    assert (batched.kind, batched.texts_per_pass) == ("batched", MIX_TEXTS)


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("queries", ["mix-single"]),
        ("documents", ["mix-batched"]),
        ("mixed", ["mix-single", "mix-batched"]),
        ("service.jsonl", ["mix-single", "mix-batched"]),
    ],
)
def test_a_workload_is_of_the_mixes_it_names(choice, names):
    requests, documents = tokens_of_lengths([3, 4]), tokens_of_lengths([9] * 100)
    workload = workload_of(choice, requests, documents, 10)
    assert [one.name for one in workload] == names
    lengths = {one.name: set(one.tokens.lengths.tolist()) for one in workload}
    assert lengths.get("mix-single", {3, 4}) == {3, 4}
    assert lengths.get("mix-batched", {9}) == {9}
