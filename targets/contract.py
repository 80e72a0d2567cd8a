"""What every target, device and stage agrees on: frozen values and protocols.

Only the standard library and numpy are imported here, so that a vendor's plug-in
and the runner's client can depend on it without pulling in any runtime.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]

Precision = Literal["float32", "bfloat16", "float16", "int8", "int4"]
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "float16", "int8", "int4")
Verdict = Literal["pass", "fail", "inconclusive", "not_run"]
Quantizer = Literal["none", "nncf_ptq", "nncf_weight_only", "qdq", "ort_dynamic", "matmul_nbits"]
Calibrator = Literal["minmax", "percentile", "entropy", "mse", "auto"]
CALIBRATORS: tuple[Calibrator, ...] = ("minmax", "percentile", "entropy", "mse", "auto")
IntegerScheme = Literal["U8S8", "S8S8", "U8U8"]
"""Activations, then weights: U8 unsigned, S8 signed."""
Switch = Literal["off", "on", "auto"]


class Progress(Protocol):
    """Called by long work: how much is done, of how much (None: unknown)."""

    def __call__(self, done: int, total: int | None = None) -> None:
        """Take note of the progress."""


def no_progress(done: int, total: int | None = None) -> None:
    """Ignore progress."""


# --------------------------------------------------------------------------- the graph


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """A graph input or output; a dimension is a size or a symbolic name."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxArtifact:
    """The FP32 graph: pooling and normalization inside, dynamic batch and sequence.

    `path` is the `.onnx` file; weights over 2 GB lie beside it in `<file>.onnx_data`.
    `sha256` covers the graph file and its external data.
    """

    path: Path
    sha256: str
    opset: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    model_id: str
    revision: str | None
    embedding_dim: int
    pooling: str
    normalized: bool
    max_seq_length: int


# ------------------------------------------------------------------------------ tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSequences:
    """Token ids of many texts without padding (ragged).

    Args:
        ids: all ids behind each other, shape [total_tokens], int32.
        offsets: text i is ids[offsets[i]:offsets[i + 1]], shape [num_texts + 1], int64.
        pad_token_id: what a batch is padded with.
        num_truncated: how many texts were cut at the model's limit.
    """

    ids: NDArray[np.int32]
    offsets: IntArray
    pad_token_id: int
    num_truncated: int = 0

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> NDArray[np.int32]:
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    def __iter__(self) -> Iterator[NDArray[np.int32]]:
        return (self[index] for index in range(len(self)))

    @property
    def lengths(self) -> IntArray:
        """Tokens of each text, shape [num_texts], int64."""
        return np.diff(self.offsets)

    @property
    def sha256(self) -> str:
        """Hash of ids, borders and padding."""
        digest = hashlib.sha256(str(self.pad_token_id).encode())
        digest.update(np.ascontiguousarray(self.offsets, dtype="<i8").tobytes())
        digest.update(np.ascontiguousarray(self.ids, dtype="<i4").tobytes())
        return digest.hexdigest()

    def select(self, indices: Sequence[int] | IntArray) -> TokenSequences:
        """Return the texts at `indices`, in that order."""
        return TokenSequences.from_lists([self[int(i)] for i in indices], self.pad_token_id)

    @classmethod
    def from_lists(
        cls,
        sequences: Sequence[Sequence[int] | NDArray[np.int32]],
        pad_token_id: int,
        num_truncated: int = 0,
    ) -> TokenSequences:
        """Pack per-text ids into one ragged value."""
        lengths = np.fromiter((len(s) for s in sequences), np.int64, len(sequences))
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        parts = [np.asarray(s, np.int32) for s in sequences]
        ids = np.concatenate(parts) if parts else np.zeros(0, np.int32)
        return cls(ids=ids, offsets=offsets, pad_token_id=pad_token_id, num_truncated=num_truncated)

    def save(self, path: Path) -> None:
        """Write an uncompressed `.npz` without pickles."""
        np.savez(
            path,
            ids=self.ids,
            offsets=self.offsets,
            meta=np.array([self.pad_token_id, self.num_truncated], np.int64),
        )

    @classmethod
    def load(cls, path: Path) -> TokenSequences:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as data:
            pad, truncated = (int(v) for v in data["meta"])
            return cls(
                ids=data["ids"], offsets=data["offsets"], pad_token_id=pad, num_truncated=truncated
            )


# ---------------------------------------------------------------------------- recipes


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerOverride:
    """A precision for the layers whose module path matches a glob pattern."""

    pattern: str
    precision: Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class QdqScheme:
    """How eight-bit integers stand for floats in a graph with Q/DQ nodes.

    Args:
        integers: types of activations and weights.
        symmetric: activations have no zero point (TensorRT takes nothing else).
        calibrator: what chooses the range of an activation from its statistics.
        smoothing: whether outliers of activations are moved into the weights.
        correction: whether weights are rounded, and biases set, so that the layer's output
            moves least on the calibration texts.
        reduce_range: layers (globs on module paths) whose weights keep seven bits, so that
            pairs of products cannot saturate 16 bits on CPUs without VNNI.
    """

    integers: IntegerScheme = "U8S8"
    symmetric: bool = False
    calibrator: Calibrator = "auto"
    smoothing: Switch = "auto"
    correction: Switch = "auto"
    reduce_range: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a graph is made fast: what is quantized, what stays float, and why.

    Args:
        name: unique within a target's candidates; used in file names and reports.
        precision: precision of the linear layers that no override names.
        float_precision: precision of everything that is not int8 (attention, LayerNorm, …).
        quantizer: who quantizes; "none" for pure float recipes.
        overrides: layers that differ from `precision`, by module-path pattern. The special
            pattern "attention.matmul" names the two MatMuls inside each attention, and
            "ffn.down" the linear layer that ends each feed-forward block.
        requires: CPU or GPU features without which the precision is not accelerated.
        scheme: how integers stand for floats, for quantizer "qdq"; None for the others.
        embeddings: precision that embedding tables are stored in, by quantizer "qdq".
        why: why this recipe is tried on this hardware, in one sentence.
    """

    name: str
    precision: Precision
    float_precision: Precision
    quantizer: Quantizer = "none"
    overrides: tuple[LayerOverride, ...] = ()
    requires: tuple[str, ...] = ()
    scheme: QdqScheme | None = None
    embeddings: Precision = "float32"
    why: str


# --------------------------------------------------------------------- hardware, target


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What a device is, as far as choosing a precision needs it.

    `features` use the Linux kernel's names (`avx512_vnni`, `amx_bf16`, `asimddp`, …).
    """

    architecture: str
    vendor: str
    model_name: str
    microarchitecture: str
    features: frozenset[str]
    num_cores: int
    memory_bytes: int

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that change when figures may no longer be compared."""
        parts = (
            self.architecture,
            self.vendor,
            self.model_name,
            self.microarchitecture,
            *sorted(self.features),
            str(self.num_cores),
        )
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSpec:
    """What a target is anywhere, with or without its runtime installed.

    Args:
        architectures: of the devices that its artifacts are made for.
        distributions: Python distributions that a device must have for its runner, besides
            numpy.
    """

    name: str
    vendor: str
    runtime: str
    precisions: tuple[Precision, ...]
    max_opset: int
    artifact_kind: str
    extra: str
    architectures: tuple[str, ...] = ("x86_64", "aarch64")
    distributions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Availability:
    """What a probe of one device found. `missing` says what is lacking and how to mend it."""

    ok: bool
    missing: tuple[str, ...] = ()
    device_name: str = ""
    fingerprint: str = ""
    features: tuple[str, ...] = ()
    tool_versions: Mapping[str, str] = field(default_factory=dict)


# ------------------------------------------------------------------------- compilation


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactFile:
    """One file of a compiled artifact, relative to the artifact's directory.

    `on_device` is False for what a device does not load: another form of the same model, a report.
    """

    path: str
    sha256: str
    size_bytes: int
    on_device: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileRequest:
    """Everything a target needs to build one artifact into an empty `output_dir`.

    `plans` is a file of `targets.quantization.plans_file` with the int8 forms of this graph's
    linear layers in the recipe's scheme; there is one whenever the quantizer is "qdq".
    """

    graph: OnnxArtifact
    recipe: Recipe
    calibration: TokenSequences
    plans: Path | None = None
    hardware: Hardware
    output_dir: Path
    num_threads: int
    seed: int
    progress: Progress = no_progress


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledArtifact:
    """A built artifact: files under `directory`, the first of them is the entry file."""

    directory: Path
    files: tuple[ArtifactFile, ...]
    target: str
    recipe: Recipe
    built_from: str
    device_requirement: tuple[str, ...]
    tool_versions: Mapping[str, str]
    compile_s: float

    @property
    def size_bytes(self) -> int:
        """Size of the files that a device needs, together."""
        return sum(file.size_bytes for file in self.files if file.on_device)


# ------------------------------------------------------------------------- the runner


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """What the runner on the device must load.

    Args:
        adapter: a Python file that imports numpy and one runtime only and defines
            `open_session(model, plan)`; it travels to the device with the artifact.
        model: entry file of the artifact on this machine; its siblings travel with it.
        inputs: graph input names in the order they are fed.
        output: name of the embedding output.
        options: runtime options, always explicit (precision hint, threads, streams).
        length_multiple: sequence lengths are padded up to a multiple of this, so that
            mixed lengths do not pay for new shapes.
        max_batch_tokens: padded tokens per batch when many texts are embedded.
    """

    adapter: Path
    model: Path
    inputs: tuple[str, ...]
    output: str
    pad_token_id: int
    embedding_dim: int
    max_seq_length: int
    options: Mapping[str, str] = field(default_factory=dict)
    length_multiple: int = 16
    max_batch_tokens: int = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeVariant:
    """Another way of running an artifact that stays what it is: threads, streams, batches.

    Args:
        name: unique within the variants of one plan; used in reports.
        plan: the whole plan; model, inputs and output are those of the plan that it varies.
        num_threads: CPU threads of the runner.
        why: why it may be faster, in one sentence.
        batched_only: it serves several batches at once and slows single requests down, however
            a busy machine makes it look; not tried where single requests count.
    """

    name: str
    plan: RunPlan
    num_threads: int
    why: str
    batched_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """How texts are put into batches for `Runner.embed` and for timed mixes.

    Args:
        max_batch: texts per batch at most.
        max_tokens: padded tokens per batch at most; None: the plan's own budget.
        sort: True: by length (least padding); False: the order given.
        length_multiple: None: the plan's own.
        extra_padding: additional pad tokens behind every text (stability checks).
    """

    max_batch: int = 64
    max_tokens: int | None = None
    sort: bool = True
    length_multiple: int | None = None
    extra_padding: int = 0


ALONE = Batching(max_batch=1)
"""Each text by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Something that is timed.

    kind "shape": full batches of `batch_size` × `sequence_length`, one sample per call.
    kind "single": every text of `tokens` alone, one sample per text.
    kind "batched": all `tokens` in length-sorted batches, one sample per whole pass.
    """

    name: str
    kind: Literal["shape", "single", "batched"]
    batch_size: int = 1
    sequence_length: int = 0
    tokens: TokenSequences | None = None

    @property
    def texts_per_pass(self) -> int:
        """Texts that one pass embeds."""
        return self.batch_size if self.tokens is None else len(self.tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutedPrecision:
    """One row of what a runtime really executed.

    `time_share` is the fraction of the profiled time in [0, 1]; None where the runtime
    does not tell. `node_names` are not kept: this is an aggregate.
    """

    op_type: str
    dtype: str
    count: int
    time_share: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerInfo:
    """What the runner knows about its process after loading.

    `load_s` and `first_call_ms` are None on a device that measures no latency.
    """

    load_s: float | None
    first_call_ms: float | None
    rss_bytes: int
    peak_rss_bytes: int
    tool_versions: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


class Runner(Protocol):
    """A loaded artifact on a device. Time is taken on the device."""

    def embed(
        self,
        tokens: TokenSequences,
        batching: Batching = ...,
        progress: Progress = ...,
    ) -> FloatArray:
        """Embed texts; rows in the order given, shape [num_texts, dim], float32."""

    def time(self, workload: Workload, passes: int, warmup: int = 0) -> FloatArray:
        """Run `passes` timed passes after `warmup` untimed ones; samples in milliseconds.

        Shape [passes] for "shape" and "batched", [passes * num_texts] for "single"
        (pass by pass, texts in the order given).
        """

    def inspect(self, tokens: TokenSequences) -> tuple[ExecutedPrecision, ...]:
        """Say which precision each kind of operation really ran in."""

    def info(self) -> RunnerInfo:
        """Return load and first-call time, memory so far, versions, effective options."""

    def close(self) -> None:
        """End the process; never raises."""


@runtime_checkable
class Device(Protocol):
    """A place where artifacts run.

    `measures_latency` is False where time means nothing (emulation): no latency is ever taken.
    """

    name: str
    measures_latency: bool

    def distributions(self, names: Sequence[str]) -> Mapping[str, str]:
        """Return the versions of those distributions that its runners can import.

        Raises:
            DeviceError: the device does not answer.
        """

    def hardware(self) -> Hardware:
        """Detect what this device is."""

    def start(self, plan: RunPlan, num_threads: int) -> Runner:
        """Push what is needed, start the runner and load the artifact."""


@runtime_checkable
class Target(Protocol):
    """One runtime on one class of hardware."""

    spec: TargetSpec

    def probe(self, device: Device) -> Availability:
        """Say whether this target can run on that device; never raises."""

    def candidates(self, graph: OnnxArtifact | None, hardware: Hardware) -> Sequence[Recipe]:
        """Return the recipes that this hardware supports; the first is the FP32 baseline.

        The others come in the order of promise: a limited search leaves out the last ones.
        Without a graph: those for any encoder.
        """

    def compile(self, request: CompileRequest) -> CompiledArtifact:
        """Build one artifact. Raises: CompileError, NotInstalledError."""

    def run_plan(
        self, artifact: CompiledArtifact, graph: OnnxArtifact, pad_token_id: int, num_threads: int
    ) -> RunPlan:
        """Say what the runner must load."""

    def ship(self, artifact: CompiledArtifact) -> Sequence[tuple[str, str]]:
        """Say where the files go: (path in the artifact, path in the bundle).

        The first is the entry file under the name that the runtime's loaders look for by
        default; a file may appear again under another conventional name.
        """


@runtime_checkable
class Tunable(Protocol):
    """What a target may offer besides: other ways of running its artifacts."""

    def variants(self, plan: RunPlan, num_threads: int) -> Sequence[RuntimeVariant]:
        """Return the variants of a plan that are worth timing; none is an answer.

        The more promising come first. None of them equals the plan itself.
        """


def variants_of(target: Target, plan: RunPlan, num_threads: int) -> tuple[RuntimeVariant, ...]:
    """Return a target's runtime variants; none where it does not offer any."""
    return tuple(target.variants(plan, num_threads)) if isinstance(target, Tunable) else ()


# --------------------------------------------------------------------------- judgement


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A confidence interval."""

    low: float
    high: float
    confidence: float = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One question of the policy, answered.

    `not_run` needs a reason; `inconclusive` says in `reason` what would decide it.
    """

    name: str
    verdict: Verdict
    value: float | None
    threshold: float | None
    unit: str = ""
    interval: Interval | None = None
    reason: str = ""
    details: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.verdict in ("not_run", "inconclusive") and not self.reason:
            raise ValueError(f"check {self.name!r} is {self.verdict} without a reason")
