"""A contender starts with its own threads and its own batches."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.contenders import OURS, Contender, our_contender
from benchmarks.habits import PeerRunner
from targets.contract import RunPlan

PLAN = RunPlan(
    adapter=Path("adapter.py"),
    model=Path("model.onnx"),
    inputs=("input_ids",),
    output="sentence_embedding",
    pad_token_id=0,
    embedding_dim=8,
    max_seq_length=64,
)


class RecordingDevice:
    """Stands where processes would start: hands back what it was asked for."""

    def start(self, plan, num_threads):
        return plan, num_threads


@pytest.mark.parametrize(("own", "threads"), [(None, 4), (2, 2)])
def test_ours_takes_the_threads_of_the_way_that_was_chosen(own, threads):
    ours = our_contender(PLAN, "int8", {"onnxruntime": "1.0"}, own)
    assert ours.start(RecordingDevice(), 4) == (PLAN, threads)
    assert (ours.name, ours.title) == (OURS, "this bundle, recipe int8")
    assert ours.batch_size is None


def test_a_peer_takes_the_threads_of_all_and_batches_of_its_own():
    peer = Contender(name="peer", title="a peer", plan=PLAN, batch_size=32)
    runner = peer.start(RecordingDevice(), 4)
    assert isinstance(runner, PeerRunner)
    assert runner._runner == (PLAN, 4)
