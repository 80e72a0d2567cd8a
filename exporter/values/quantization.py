"""How the int8 forms of layers were found."""

from __future__ import annotations

from dataclasses import dataclass

from targets.contract import Precision


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
class TableSensitivity:
    """What large embedding tables cost in another precision, all layers in float.

    Args:
        precision: that they are stored in.
        drift: 1 - mean cosine on held-out texts.
        num_bytes: what they then take, scales included.
        float_bytes: what they take in float32.
    """

    precision: Precision
    drift: float
    num_bytes: int
    float_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """One look of a training at its held-out texts.

    Args:
        step: training steps done.
        loss: mean of the loss since the last look; 0.0 at the first.
        drift: 1 - mean cosine with FP32 on the held-out texts.
    """

    step: int
    loss: float
    drift: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelsSummary:
    """What embeddings tell of the classes of training texts, by the nearest class centre of FP32.

    Args:
        num_classes: how many were told apart.
        num_labelled: texts that were trained on and have one.
        num_held_out: texts that were not and have one; accuracies are theirs.
        accuracy_fp32: share of them whose nearest centre is their own.
        accuracy_before: likewise, of the post-training form, run in ONNX Runtime.
        accuracy_after: likewise, of the trained form.
    """

    num_classes: int
    num_labelled: int
    num_held_out: int
    accuracy_fp32: float
    accuracy_before: float
    accuracy_after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSummary:
    """A quantization-aware training beside the post-training form that it started from.

    Args:
        texts: name of the training texts.
        num_texts: trained on.
        num_held_out: texts that were not trained on; drifts are theirs.
        num_steps: training steps done.
        batch_tokens: tokens of each.
        curve: looks at the held-out texts, in PyTorch; the first before training.
        drift_before: of the post-training form, run in ONNX Runtime.
        drift_after: of the trained form, likewise.
        agreement: lowest cosine between what PyTorch and ONNX Runtime make of the trained form.
        used: whether the trained form is better there, and became a recipe.
        labels: None where none were given, or too few of the held-out texts have one.
    """

    texts: str
    num_texts: int
    num_held_out: int
    num_steps: int
    batch_tokens: int
    curve: tuple[CurvePoint, ...]
    drift_before: float
    drift_after: float
    agreement: float
    used: bool
    labels: LabelsSummary | None = None


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
        tables: one entry for each precision other than float32 that recipes store large embedding
            tables in.
        training: None where none was asked for.
        attention: ranges of attention in int8 that were compared, best first, each with the drift
            of all layers and attention together; empty: attention stays in float.
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
    tables: tuple[TableSensitivity, ...] = ()
    training: TrainingSummary | None = None
    attention: tuple[MethodScore, ...] = ()
