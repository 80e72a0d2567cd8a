from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from targets.contract import ALONE, Batching, TokenSequences
from targets.errors import DeviceLacksError, NonFiniteError, RunnerFailedError

POISONED = [5, 1000, 6]


@pytest.mark.parametrize(
    "batching",
    [
        Batching(),
        ALONE,
        Batching(sort=False),
        Batching(max_batch=3),
        Batching(max_tokens=1),
        Batching(extra_padding=24),
        Batching(length_multiple=1),
    ],
    ids=["default", "alone", "unsorted", "three", "budget-of-one", "padded", "exact"],
)
def test_rows_come_back_in_the_order_given_whatever_the_batches(start, texts, expected, batching):
    rows = start().embed(texts, batching)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, expected(texts), rtol=1e-5, atol=1e-6)


def test_a_scrambled_order_is_noticed(start, texts, expected):
    """The check above would see rows that come back by length."""
    rows = start().embed(texts)
    by_length = rows[np.argsort(-texts.lengths, kind="stable")]
    assert not np.allclose(by_length, expected(texts), atol=1e-3)


def test_no_texts_give_no_rows(start):
    nothing = TokenSequences.from_lists([], 1)
    assert start().embed(nothing).shape == (0, 6)


def test_batches_obey_bucket_budget_and_limit(start, texts, tmp_path, read_log):
    log = tmp_path / "runs"
    runner = start(options={"log": str(log)})
    log.unlink()
    runner.embed(texts)
    runs = read_log(log)
    assert sorted(n for run in runs for n in run["real"]) == sorted(texts.lengths.tolist())
    for run in runs:
        batch, length = run["shape"]
        assert length in (16, 32, 40)  # multiples of 16, and the model's limit
        assert length >= max(run["real"])
        assert batch * length <= 96
        assert run["pad_ids"] in ([], [1])
        assert run["types"] == 0


@pytest.mark.parametrize(("extra", "shapes"), [(0, [16]), (8, [32]), (16, [32]), (100, [40])])
def test_extra_padding_is_never_lost_in_the_bucket(start, tmp_path, read_log, extra, shapes):
    log = tmp_path / "runs"
    runner = start(options={"log": str(log)})
    log.unlink()
    tokens = TokenSequences.from_lists([[7, 8, 9]], 1)
    runner.embed(tokens, Batching(extra_padding=extra))
    assert [run["shape"][1] for run in read_log(log)] == shapes


def test_only_the_graphs_own_inputs_are_fed(start, texts, tmp_path, read_log):
    log = tmp_path / "runs"
    start(inputs=("attention_mask", "input_ids"), options={"log": str(log)}).embed(texts)
    assert {tuple(run["names"]) for run in read_log(log)} == {("attention_mask", "input_ids")}


def test_an_input_that_token_ids_cannot_feed_is_refused(start):
    with pytest.raises(RunnerFailedError, match="position_ids"):
        start(inputs=("input_ids", "position_ids"))


def test_non_finite_rows_are_named(start, texts):
    lists = [list(ids) for ids in texts]
    lists[4], lists[17] = POISONED, POISONED
    runner = start(options={"poison": "nan"})
    with pytest.raises(NonFiniteError, match=r"2 of 30 .*\(texts 4, 17\)"):
        runner.embed(TokenSequences.from_lists(lists, 1))
    assert np.isfinite(runner.embed(texts)).all()


@pytest.mark.parametrize(
    ("poison", "said"),
    [
        ("raise", "ValueError while embedding a batch: the kernel has no such shape"),
        ("memory", "out of memory"),
        ("shape", r"sentence_embedding.*\(1, 5\).*expected float32 \(1, 6\)"),
        ("dtype", "is float64"),
    ],
)
def test_a_failed_command_is_an_error_by_name_and_the_runner_goes_on(
    start, texts, expected, poison, said
):
    runner = start(options={"poison": poison})
    with pytest.raises(RunnerFailedError, match=said):
        runner.embed(TokenSequences.from_lists([POISONED], 1))
    np.testing.assert_allclose(runner.embed(texts), expected(texts), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("how", "said"), [("lacks", "there is no soldering iron"), ("import", "a_runtime_nobody_has")]
)
def test_what_the_device_lacks_is_told_from_what_fails(start, how, said):
    with pytest.raises(DeviceLacksError, match=said):
        start(options={"at_load": how})
    with pytest.raises(RunnerFailedError, match="no such shape") as failed:
        start(options={"at_load": "raise"})
    assert not isinstance(failed.value, DeviceLacksError)


def test_a_text_beyond_the_limit_is_refused(start):
    tokens = TokenSequences.from_lists([[5, 6], [7] * 41], 1)
    with pytest.raises(RunnerFailedError, match="text 1 has 41 tokens, the model takes 40"):
        start().embed(tokens)


def test_borders_that_do_not_fit_are_refused(start, texts):
    cut = replace(texts, ids=texts.ids[:-3])
    with pytest.raises(RunnerFailedError, match="borders do not fit"):
        start().embed(cut)


@pytest.mark.parametrize(
    "batching", [Batching(max_batch=0), Batching(length_multiple=0), Batching(extra_padding=-1)]
)
def test_rules_that_allow_no_batch_are_refused(start, texts, batching):
    with pytest.raises(RunnerFailedError, match=r"positive|negative"):
        start().embed(texts, batching)


def test_progress_ends_at_the_number_of_texts(start, texts):
    seen: list[tuple[int, int | None]] = []
    start().embed(texts, progress=lambda done, total=None: seen.append((done, total)))
    assert seen[-1] == (30, 30)
    assert seen == sorted(seen)
