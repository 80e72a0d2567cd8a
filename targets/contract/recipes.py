"""How a graph is made fast: precisions, schemes, recipes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["float32", "bfloat16", "float16", "float8", "int8", "int4"]
"""float8 is E4M3 (ONNX: FLOAT8E4M3FN), multiplied by tensor cores of compute capability 8.9 on."""
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "float16", "float8", "int8", "int4")
Quantizer = Literal[
    "none",
    "nncf_ptq",
    "nncf_weight_only",
    "qdq",
    "ort_dynamic",
    "matmul_nbits",
    "torchao_dynamic",
    "torchao_weight_only",
    "torch_dynamic",
    "bnb_int8",
    "bnb_nf4",
]
Calibrator = Literal["minmax", "percentile", "entropy", "mse", "auto"]
CALIBRATORS: tuple[Calibrator, ...] = ("minmax", "percentile", "entropy", "mse", "auto")
IntegerScheme = Literal["U8S8", "S8S8", "U8U8"]
"""Activations, then weights: U8 unsigned, S8 signed."""
Switch = Literal["off", "on", "auto"]


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
        trained: integers and biases went through quantization-aware training.
        attention: the two products inside each attention are int8 as well.
    """

    integers: IntegerScheme = "U8S8"
    symmetric: bool = False
    calibrator: Calibrator = "auto"
    smoothing: Switch = "auto"
    correction: Switch = "auto"
    reduce_range: tuple[str, ...] = ()
    trained: bool = False
    attention: bool = False


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
        embeddings: precision that embedding tables are stored in, by quantizer "qdq" and by
            those of PyTorch.
        outlier_threshold: activations whose magnitude reaches it are multiplied in float16, by
            quantizer "bnb_int8" (LLM.int8, arXiv:2208.07339, section 3.2); None for the others.
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
    outlier_threshold: float | None = None
    why: str
