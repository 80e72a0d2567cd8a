"""Evaluation sets and embeddings with a known structure, for the tests of the judge."""

from __future__ import annotations

import numpy as np

from exporter.values import (
    Estimate,
    EvaluationEmbeddings,
    EvaluationSet,
    Fidelity,
    Judgements,
    Latency,
    ScoredPairs,
    Stability,
)
from targets.contract import Interval

DIM = 32


def clustered(num_texts: int, seed: int = 0, dim: int = DIM) -> np.ndarray:
    """Unit rows in loose clusters, so that neighbourhoods mean something; float32."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(2, num_texts // 40), dim))
    rows = centres[rng.integers(0, len(centres), num_texts)]
    rows = rows + 0.7 * rng.normal(size=(num_texts, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def noisy(rows: np.ndarray, noise: float, seed: int = 1) -> np.ndarray:
    """The same rows with Gaussian noise of relative length `noise`."""
    rng = np.random.default_rng(seed)
    moved = rows + noise / np.sqrt(rows.shape[1]) * rng.normal(size=rows.shape)
    return moved.astype(np.float32)


def retrieval_set(num_queries: int, num_documents: int, seed: int = 0) -> EvaluationSet:
    """Each query has one relevant document."""
    rng = np.random.default_rng(seed)
    return EvaluationSet(
        name="made",
        origin="made for a test",
        split="test",
        query_ids=tuple(f"q{i}" for i in range(num_queries)),
        queries=tuple(f"query {i}" for i in range(num_queries)),
        document_ids=tuple(f"d{i}" for i in range(num_documents)),
        documents=tuple(f"document {i} " * 30 for i in range(num_documents)),
        judgements=Judgements(
            query=np.arange(num_queries),
            document=rng.integers(0, num_documents, num_queries),
            gain=np.ones(num_queries, np.float32),
        ),
        sha256="0" * 64,
    )


def retrieval_embeddings(evaluation: EvaluationSet, seed: int = 0) -> EvaluationEmbeddings:
    """Queries lie near their relevant documents."""
    documents = clustered(len(evaluation.documents), seed)
    assert evaluation.judgements is not None
    queries = noisy(documents[evaluation.judgements.document], 0.5, seed + 1)
    return EvaluationEmbeddings(queries=queries, documents=documents)


def moved(embedded: EvaluationEmbeddings, noise: float, seed: int = 7) -> EvaluationEmbeddings:
    return EvaluationEmbeddings(
        queries=noisy(embedded.queries, noise, seed),
        documents=noisy(embedded.documents, noise, seed + 1),
    )


def text_set(num_documents: int, pairs: ScoredPairs | None = None) -> EvaluationSet:
    return EvaluationSet(
        name="plain",
        origin="made for a test",
        split="dev",
        query_ids=(),
        queries=(),
        document_ids=tuple(f"d{i}" for i in range(num_documents)),
        documents=tuple(f"text {i}" for i in range(num_documents)),
        pairs=pairs,
        sha256="0" * 64,
    )


def lengths_of(evaluation: EvaluationSet, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return (
        rng.integers(3, 40, len(evaluation.queries)),
        rng.integers(8, 300, len(evaluation.documents)),
    )


STABLE = Stability(alone_vs_batched=1.0, padded=0.99999, shuffled=1.0, num_texts=32)


def estimate(value: float, low: float, high: float, num_samples: int = 1000) -> Estimate:
    return Estimate(value=value, interval=Interval(low=low, high=high), num_samples=num_samples)


def fidelity(**changes: object) -> Fidelity:
    """A fidelity that passes the default policy, with changes."""
    fields: dict[str, object] = {
        "evaluation": "made",
        "split": "test",
        "num_texts": 2000,
        "num_queries": 1000,
        "k": 10,
        "mean_cosine": estimate(0.998, 0.997, 0.999, 2000),
        "p1_cosine": estimate(0.990, 0.985, 0.992, 2000),
        "min_cosine": 0.97,
        "overlap_at_k": estimate(0.97, 0.965, 0.975),
        "labels": (),
        "stability": STABLE,
        "slices": (),
        "worst": (),
    }
    return Fidelity(**{**fields, **changes})  # type: ignore[arg-type]


def latency(workload: str, speedup: Estimate | None) -> Latency:
    return Latency(
        workload=workload,
        num_samples=7,
        texts_per_sample=1,
        median_ms=1.0,
        p90_ms=None,
        p99_ms=None,
        mean_ms=1.0,
        texts_per_s=1000.0,
        spread=0.01,
        speedup=speedup,
    )
