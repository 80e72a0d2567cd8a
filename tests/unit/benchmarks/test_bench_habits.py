"""A peer's batches: 32 texts at most, the longest first, every text once."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest

from benchmarks.habits import PEER_BATCH_SIZE, PeerRunner, peer_batches
from targets.contract import Batching, TokenSequences, Workload

LENGTHS = [3, 9, 5, 7, 4, 8, 6]
TOKENS = TokenSequences.from_lists([[number] * n for number, n in enumerate(LENGTHS, 1)], 0)


class RecordingRunner:
    """Stands where a process would: notes what it is asked and answers at once."""

    def __init__(self):
        self.asked: list[tuple[tuple[int, ...], int, int]] = []
        self.batchings: list[Batching] = []
        self.closed = False

    def time(self, workload, passes, warmup=0):
        lengths = () if workload.tokens is None else tuple(workload.tokens.lengths.tolist())
        self.asked.append((lengths, passes, warmup))
        return np.full(passes, 1.0 + len(lengths), np.float32)

    def embed(self, tokens, batching, progress):
        self.batchings.append(batching)
        return np.zeros((len(tokens), 2), np.float32)

    def close(self):
        self.closed = True


def test_batches_hold_every_text_once_longest_first():
    batches = peer_batches(TOKENS, 3)
    lengths = [batch.tokens.lengths.tolist() for batch in batches]
    assert lengths == [[9, 8, 7], [6, 5, 4], [3]]
    ids = sorted(int(text[0]) for batch in batches for text in batch.tokens)
    assert ids == list(range(1, len(LENGTHS) + 1))


def test_a_pass_is_the_sum_of_its_batches_in_turn():
    runner = RecordingRunner()
    mix = Workload(name="mix-batched", kind="batched", tokens=TOKENS)
    samples = PeerRunner(runner, 16, 3).time(mix, 2, warmup=1)
    assert samples.tolist() == [4.0 + 4.0 + 2.0] * 2
    one_pass = [((9, 8, 7), 1, 0), ((6, 5, 4), 1, 0), ((3,), 1, 0)]
    assert runner.asked == one_pass * 3


@pytest.mark.parametrize("kind", ["shape", "single"])
def test_other_workloads_are_passed_on_as_they_are(kind):
    runner = RecordingRunner()
    tokens = TOKENS if kind == "single" else None
    workload = Workload(name="w", kind=kind, sequence_length=16, tokens=tokens)
    PeerRunner(runner, 16).time(workload, 5, warmup=2)
    assert [asked[1:] for asked in runner.asked] == [(5, 2)]


def test_embedding_takes_the_peer_s_batch_size():
    runner = RecordingRunner()
    with closing(PeerRunner(runner, 256)) as peer:
        peer.embed(TOKENS)
    assert runner.batchings[0].max_batch == PEER_BATCH_SIZE
    assert runner.batchings[0].max_tokens == PEER_BATCH_SIZE * 256
    assert runner.closed
