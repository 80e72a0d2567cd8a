from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from targets.contract import TokenSequences
from targets.runner.batches import (
    Tokens,
    build_inputs,
    full_batch,
    padded_lengths,
    plan_batches,
    read_tokens,
)
from targets.runner.plan import BatchRules, RunnerFailure, SessionPlan

PLAN = SessionPlan(
    adapter=Path("adapter.py"),
    model=Path("model.bin"),
    inputs=("input_ids", "attention_mask", "token_type_ids"),
    output="sentence_embedding",
    pad_token_id=1,
    embedding_dim=4,
    max_seq_length=100,
    options={},
    length_multiple=16,
    max_batch_tokens=256,
    num_threads=1,
)
RULES = BatchRules.from_json({}, PLAN)

rules = st.builds(
    BatchRules,
    max_batch=st.integers(1, 9),
    max_tokens=st.integers(1, 400),
    sort=st.booleans(),
    length_multiple=st.integers(1, 40),
    extra_padding=st.integers(0, 50),
    max_seq_length=st.just(100),
)
lengths_of_texts = st.lists(st.integers(0, 100), max_size=40).map(lambda n: np.array(n, np.int64))


def tokens_of(*texts: list[int]) -> Tokens:
    packed = TokenSequences.from_lists(texts, 1)
    return Tokens(packed.ids.astype(np.int64), packed.offsets)


@given(lengths_of_texts, rules)
def test_every_text_is_in_exactly_one_batch_that_fits(lengths, rules):
    batches = plan_batches(lengths, rules)
    assert sorted(np.concatenate([[], *batches])) == list(range(len(lengths)))
    for batch in batches:
        padded = int(padded_lengths(lengths[batch], rules).max())
        assert len(batch) <= rules.max_batch
        assert len(batch) == 1 or len(batch) * padded <= rules.max_tokens


@given(lengths_of_texts, rules)
def test_padding_holds_the_text_and_keeps_the_limit(lengths, rules):
    padded = padded_lengths(lengths, rules)
    assert (padded >= np.maximum(lengths, 1)).all()
    assert (padded <= 100).all()
    assert all(n % rules.length_multiple == 0 or n == 100 for n in padded)


@given(lengths_of_texts, rules)
def test_extra_padding_adds_at_least_what_was_asked(lengths, rules):
    without = padded_lengths(lengths, replace(rules, extra_padding=0))
    wanted = np.minimum(without + rules.extra_padding, rules.max_seq_length)
    assert (padded_lengths(lengths, rules) >= wanted).all()


def test_unsorted_batches_keep_the_order_given():
    batches = plan_batches(np.array([3, 90, 4, 5]), replace(RULES, sort=False))
    assert np.concatenate(batches).tolist() == [0, 1, 2, 3]


def test_sorting_pads_less():
    lengths = np.tile([4, 90], 12)
    cost = {
        sort: sum(
            len(batch) * int(padded_lengths(lengths[batch], RULES).max())
            for batch in plan_batches(lengths, replace(RULES, sort=sort))
        )
        for sort in (True, False)
    }
    assert cost[True] < 0.7 * cost[False]


def test_a_batch_is_padded_on_the_right_and_masked():
    inputs = build_inputs(
        tokens_of([7, 8, 9], [5]), [1, 0], replace(RULES, length_multiple=4), PLAN
    )
    assert inputs["input_ids"].tolist() == [[5, 1, 1, 1], [7, 8, 9, 1]]
    assert inputs["attention_mask"].tolist() == [[1, 0, 0, 0], [1, 1, 1, 0]]
    assert inputs["token_type_ids"].tolist() == [[0] * 4] * 2
    for array in inputs.values():
        assert array.dtype == np.int64
        assert array.flags.c_contiguous
        assert array.flags.writeable


def test_a_full_batch_is_reproducible_and_without_padding():
    first, second = (full_batch(3, 20, PLAN, None) for _ in range(2))
    np.testing.assert_array_equal(first["input_ids"], second["input_ids"])
    assert first["attention_mask"].all()
    assert len(np.unique(first["input_ids"])) > 20


def test_texts_of_special_ids_alone_fall_back_to_plain_ones():
    ids = full_batch(2, 8, PLAN, tokens_of([901, 902], []))["input_ids"]
    assert ids.min() >= 5
    assert ids.max() < 100


@pytest.mark.parametrize(("batch_size", "length"), [(0, 8), (1, 0), (1, 101), (-1, 4)])
def test_an_impossible_shape_is_refused(batch_size, length):
    with pytest.raises(RunnerFailure, match="outside"):
        full_batch(batch_size, length, PLAN, None)


def test_token_files_are_what_the_contract_saves(tmp_path):
    path = tmp_path / "tokens.npz"
    TokenSequences.from_lists([[5, 6], [], [7]], 1).save(path)
    tokens = read_tokens(path, PLAN)
    assert tokens.lengths.tolist() == [2, 0, 1]
    assert tokens[2].tolist() == [7]


def test_a_truncated_token_file_is_refused_by_name(tmp_path):
    path = tmp_path / "tokens.npz"
    TokenSequences.from_lists([[5, 6]], 1).save(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(RunnerFailure, match=r"tokens\.npz is no token file") as caught:
        read_tokens(path, PLAN)
    assert caught.value.kind == "tokens"


def test_a_token_file_with_a_pickle_is_refused(tmp_path):
    path = tmp_path / "tokens.npz"
    np.savez(path, ids=np.array([{}], object), offsets=np.array([0, 1]))
    with pytest.raises(RunnerFailure, match="is no token file"):
        read_tokens(path, PLAN)


def test_a_missing_token_file_is_named(tmp_path):
    with pytest.raises(RunnerFailure, match="no token file") as caught:
        read_tokens(tmp_path / "absent.npz", PLAN)
    assert caught.value.kind == "missing_file"


@pytest.mark.parametrize(
    ("ids", "offsets"), [([5, 6], [0, 1]), ([5, 6], [1, 2]), ([5, 6], [0, 3, 2]), ([5], [])]
)
def test_borders_that_do_not_fit_are_refused(tmp_path, ids, offsets):
    path = tmp_path / "tokens.npz"
    np.savez(path, ids=np.array(ids, np.int32), offsets=np.array(offsets, np.int64))
    with pytest.raises(RunnerFailure, match="borders"):
        read_tokens(path, PLAN)
