"""Which other ways of running it the OpenVINO target offers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from targets.contract import RunPlan
from targets.openvino.target import OpenVinoTarget

OPTIONS = {"NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": "8", "INFERENCE_PRECISION_HINT": "bf16"}
PLAN = RunPlan(
    adapter=Path("session.py"),
    model=Path("openvino_model.xml"),
    inputs=("input_ids", "attention_mask"),
    output="sentence_embedding",
    pad_token_id=0,
    embedding_dim=384,
    max_seq_length=256,
    options=OPTIONS,
    length_multiple=16,
    max_batch_tokens=2048,
)


def offered(num_threads: int, plan: RunPlan = PLAN):
    return {one.name: one for one in OpenVinoTarget().variants(plan, num_threads)}


def test_buckets_and_batches_around_the_plan_s_own():
    found = offered(1)
    assert sorted(found) == ["batch-tokens-1024", "batch-tokens-4096", "buckets-1", "buckets-32"]
    assert {found[f"buckets-{n}"].plan.length_multiple for n in (1, 32)} == {1, 32}
    assert {found[f"batch-tokens-{n}"].plan.max_batch_tokens for n in (1024, 4096)} == {1024, 4096}
    assert all(dict(one.plan.options) == OPTIONS for one in found.values())


def test_each_variant_turns_one_knob():
    for one in offered(8).values():
        turned = [
            one.plan.length_multiple != PLAN.length_multiple,
            one.plan.max_batch_tokens != PLAN.max_batch_tokens,
            dict(one.plan.options) != OPTIONS,
        ]
        assert sum(turned) == 1, one.name


def test_what_the_plan_has_already_is_not_offered():
    assert "buckets-32" not in offered(1, replace(PLAN, length_multiple=32))
    assert "streams-2" not in offered(2, replace(PLAN, options=OPTIONS | {"NUM_STREAMS": "2"}))


def test_streams_need_threads_to_share():
    assert "streams-2" not in offered(1)
    assert offered(2)["streams-2"].plan.options["NUM_STREAMS"] == "2"


def test_half_of_the_threads_only_where_there_are_many():
    assert "threads-1" not in offered(3)
    half = offered(8)["threads-4"]
    assert (half.num_threads, half.plan.options["INFERENCE_NUM_THREADS"]) == (4, "4")
