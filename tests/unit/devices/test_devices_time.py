from __future__ import annotations

import numpy as np
import pytest

from targets.contract import TokenSequences, Workload
from targets.errors import RunnerFailedError


@pytest.fixture
def logged(start, tmp_path, read_log):
    """A runner, and what it has run since."""
    log = tmp_path / "runs"
    runner = start(options={"log": str(log)})
    log.unlink()
    return runner, lambda: read_log(log)


def test_a_shape_is_full_and_the_same_at_every_call(logged):
    runner, runs = logged
    workload = Workload(name="2x8", kind="shape", batch_size=2, sequence_length=8)
    samples_ms = runner.time(workload, 3, warmup=2)
    assert samples_ms.shape == (3,)
    assert (samples_ms > 0).all()
    assert len(runs()) == 5
    assert all(run["shape"] == [2, 8] and run["real"] == [8, 8] for run in runs())
    assert len({tuple(run["ids"]) for run in runs()}) == 1
    assert runs()[0]["ids"][0] >= 5
    assert runs()[0]["ids"][1] < 900


def test_the_ids_of_a_shape_are_the_inner_ones_of_the_given_texts(logged):
    runner, runs = logged
    tokens = TokenSequences.from_lists([[901, 950, 951, 902], [901, 960, 902]], 1)
    runner.time(
        Workload(name="s", kind="shape", batch_size=2, sequence_length=40, tokens=tokens), 1
    )
    assert runs()[0]["ids"] == [950, 960]


def test_every_text_alone_in_the_order_given(logged, texts):
    runner, runs = logged
    samples_ms = runner.time(Workload(name="mix", kind="single", tokens=texts), 2, warmup=1)
    assert samples_ms.shape == (60,)
    assert [run["real"] for run in runs()] == 3 * [[n] for n in texts.lengths.tolist()]
    assert {run["shape"][1] for run in runs()} == {16, 32, 40}


def test_one_sample_for_a_pass_in_batches(logged, texts):
    runner, runs = logged
    samples_ms = runner.time(Workload(name="mix", kind="batched", tokens=texts), 2)
    assert samples_ms.shape == (2,)
    assert sum(run["shape"][0] for run in runs()) == 60
    longest_first = [run["shape"][1] for run in runs()][: len(runs()) // 2]
    assert longest_first == sorted(longest_first, reverse=True)


def test_no_garbage_is_collected_inside_timed_passes(logged):
    runner, runs = logged
    runner.time(Workload(name="s", kind="shape", sequence_length=4), 2, warmup=1)
    assert [run["gc"] for run in runs()] == [True, False, False]
    runner.embed(TokenSequences.from_lists([[7]], 1))
    assert runs()[-1]["gc"] is True


def test_a_longer_run_takes_longer(start):
    """Samples are milliseconds of the run, not of something else."""
    runner = start(max_seq_length=512)
    small = runner.time(Workload(name="s", kind="shape", batch_size=1, sequence_length=1), 5)
    large = runner.time(Workload(name="l", kind="shape", batch_size=400, sequence_length=512), 5)
    assert np.median(large) > 5 * np.median(small)
    assert 0.1 < np.median(large) < 10_000


def test_a_shape_beyond_the_limit_is_refused(start):
    with pytest.raises(RunnerFailedError, match="1 × 41 is outside"):
        start().time(Workload(name="s", kind="shape", sequence_length=41), 1)


def test_an_exception_while_timing_is_an_error_by_name(start):
    runner = start(options={"poison": "raise"})
    tokens = TokenSequences.from_lists([[5, 1000, 6]], 1)
    with pytest.raises(RunnerFailedError, match="ValueError while timing"):
        runner.time(Workload(name="mix", kind="single", tokens=tokens), 1)


def test_nonsense_is_refused_before_the_runner_hears_of_it(start):
    runner = start()
    with pytest.raises(ValueError, match="has no texts"):
        runner.time(Workload(name="mix", kind="batched"), 1)
    with pytest.raises(ValueError, match="0 passes"):
        runner.time(Workload(name="s", kind="shape", sequence_length=4), 0)
