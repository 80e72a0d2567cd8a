"""Embedding-space ids: equal only where embeddings may be mixed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from exporter.values import Estimate, Fidelity, artifact_space, model_facts, reference_space
from targets.contract import Interval, LayerOverride, Recipe


@dataclass(frozen=True)
class Model:
    weights_sha256: str = "1" * 64
    tokenizer_sha256: str = "2" * 64
    pooling: str = "mean"
    normalize: bool = True
    modules: tuple[str, ...] = ("Transformer", "Pooling", "Normalize")
    embedding_dim: int = 384
    max_seq_length: int = 256
    default_prompt: str = ""


MODEL = Model()
FLOAT32 = Recipe(name="float32", precision="float32", float_precision="float32", why="w")
INT8 = Recipe(
    name="int8", precision="int8", float_precision="bfloat16", quantizer="nncf_ptq", why="w"
)


def measured(overlap: float | None, p1: float) -> Fidelity:
    def figure(value: float) -> Estimate:
        return Estimate(value=value, interval=Interval(low=value, high=1.0), num_samples=1000)

    return Fidelity(
        evaluation="e",
        split="test",
        num_texts=10,
        num_queries=5,
        k=10,
        mean_cosine=figure(0.9999),
        p1_cosine=figure(p1),
        min_cosine=0.9,
        overlap_at_k=None if overlap is None else figure(overlap),
        labels=(),
        stability=None,
        slices=(),
        worst=(),
    )


def space(recipe=INT8, fidelity=None, artifact="a" * 64, fingerprint="f", model=MODEL) -> str:
    return artifact_space(
        model, recipe, artifact_sha256=artifact, fingerprint=fingerprint, fidelity=fidelity
    )


REFERENCE = reference_space(MODEL)


@pytest.mark.parametrize(("changes"), [
    {"weights_sha256": "3" * 64}, {"tokenizer_sha256": "3" * 64}, {"pooling": "cls"},
    {"normalize": False}, {"modules": ("Transformer", "Pooling")}, {"embedding_dim": 383},
    {"max_seq_length": 128}, {"default_prompt": "query: "},
])  # fmt: skip
def test_whatever_decides_embeddings_changes_the_id(changes):
    other = replace(MODEL, **changes)
    assert reference_space(other) != REFERENCE
    assert space(model=other).partition(":")[0] != space().partition(":")[0]
    assert (
        len([n for n in model_facts(other) if model_facts(other)[n] != model_facts(MODEL)[n]]) == 1
    )


def test_measured_equivalence_shares_fp32_s_id():
    assert space(fidelity=measured(0.99, 0.9999)) == REFERENCE
    assert REFERENCE.endswith(":float32")


@pytest.mark.parametrize(("overlap", "p1"), [(0.97, 0.9999), (0.99, 0.998), (None, 0.9999)])
def test_what_is_not_close_enough_has_an_id_of_its_own(overlap, p1):
    own = space(fidelity=measured(overlap, p1))
    assert own != REFERENCE
    assert own.split(":")[:2] == [REFERENCE.split(":")[0], "int8"]


def test_fp32_arithmetic_needs_no_measurement_but_one_that_contradicts_counts():
    assert space(FLOAT32) == REFERENCE
    assert space(FLOAT32, measured(0.5, 0.9)) != REFERENCE


@pytest.mark.parametrize("changes", [
    {"embeddings": "int8"}, {"float_precision": "bfloat16"}, {"quantizer": "qdq"},
    {"overrides": (LayerOverride(pattern="*", precision="int8"),)},
])  # fmt: skip
def test_fp32_by_name_alone_is_not_fp32(changes):
    assert space(replace(FLOAT32, **changes)) != REFERENCE


def test_another_artifact_or_device_has_another_id_unless_it_was_measured():
    ids = {space(), space(artifact="b" * 64), space(fingerprint="g")}
    assert len(ids) == 3
    assert space() == space()
    close = measured(0.99, 0.9999)
    assert space(fidelity=close) == space(fidelity=close, artifact="b" * 64, fingerprint="g")
