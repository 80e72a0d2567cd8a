"""A two-layer BERT-like encoder as ONNX with random weights, and the same model in numpy.

Needs onnx and numpy only. Nodes are named by module path, as real exports are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from targets.contract import OnnxArtifact, TensorSpec, TokenSequences
from targets.hashing import sha256_file

VOCABULARY, HIDDEN, HEADS, FFN, LAYERS, MAX_LENGTH = 64, 32, 4, 64, 2, 64
ROWS = 100
"""Of the word table: the ids of a runner's own texts reach so far, texts of tests stay below 64."""
PAD_ID = 0
OPSET = 20
MASKED = -10000.0
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
LINEAR_PATHS = tuple(
    f"encoder.layer.{layer}.{part}"
    for layer in range(LAYERS)
    for part in (
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    )
)
FFN_DOWN_PATHS = tuple(f"encoder.layer.{layer}.output.dense" for layer in range(LAYERS))

Weights = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyGraph:
    """The written graph and the weights in it."""

    artifact: OnnxArtifact
    weights: Weights

    def embed(self, tokens: TokenSequences) -> np.ndarray:
        """Run the same model in numpy, float64, text by text; unit vectors, [texts, HIDDEN]."""
        return np.stack([_forward(self.weights, ids) for ids in tokens])


def write_tiny_graph(directory: Path, seed: int = 0) -> TinyGraph:
    """Write `model.onnx` into an existing folder."""
    weights = make_weights(seed)
    path = directory / "model.onnx"
    onnx.save(build_model(weights), path)
    axes = ("batch_size", "sequence_length")
    artifact = OnnxArtifact(
        path=path,
        sha256=sha256_file(path),
        opset=OPSET,
        inputs=tuple(TensorSpec(name=name, dtype="int64", shape=axes) for name in INPUTS),
        outputs=(
            TensorSpec(name="last_hidden_state", dtype="float32", shape=(*axes, HIDDEN)),
            TensorSpec(name="sentence_embedding", dtype="float32", shape=("batch_size", HIDDEN)),
        ),
        model_id=f"tiny-{seed}",
        revision=None,
        embedding_dim=HIDDEN,
        pooling="mean",
        normalized=True,
        max_seq_length=MAX_LENGTH,
    )
    return TinyGraph(artifact=artifact, weights=weights)


def make_tokens(num_texts: int = 24, seed: int = 7) -> TokenSequences:
    """Random texts of 2 to 20 tokens; several share a length."""
    rng = np.random.default_rng(seed)
    texts = [rng.integers(1, VOCABULARY, rng.integers(2, 21)) for _ in range(num_texts)]
    return TokenSequences.from_lists([text.astype(np.int32) for text in texts], PAD_ID)


def make_weights(seed: int) -> Weights:
    """Random weights by parameter name; linear weights are [in, out]."""
    rng = np.random.default_rng(seed)
    weights: Weights = {
        "embeddings.word_embeddings.weight": rng.normal(size=(VOCABULARY, HIDDEN)),
        "embeddings.position_embeddings.weight": 0.1 * rng.normal(size=(MAX_LENGTH, HIDDEN)),
        "embeddings.token_type_embeddings.weight": 0.1 * rng.normal(size=(2, HIDDEN)),
    }
    norms = ["embeddings.LayerNorm"]
    for layer in range(LAYERS):
        norms += [
            f"encoder.layer.{layer}.{part}.LayerNorm" for part in ("attention.output", "output")
        ]
    for norm in norms:
        weights[f"{norm}.weight"] = 1 + 0.1 * rng.normal(size=HIDDEN)
        weights[f"{norm}.bias"] = 0.1 * rng.normal(size=HIDDEN)
    others = np.random.default_rng([seed, ROWS]).normal(size=(ROWS - VOCABULARY, HIDDEN))
    words = "embeddings.word_embeddings.weight"
    weights[words] = np.concatenate([weights[words], others])
    for path in LINEAR_PATHS:
        fan_in = FFN if path in FFN_DOWN_PATHS else HIDDEN
        fan_out = FFN if path.endswith("intermediate.dense") else HIDDEN
        weights[f"{path}.weight"] = rng.normal(size=(fan_in, fan_out)) / np.sqrt(fan_in)
        weights[f"{path}.bias"] = 0.1 * rng.normal(size=fan_out)
    return {name: value.astype(np.float32) for name, value in weights.items()}


# ------------------------------------------------------------------------------- ONNX


class _Builder:
    """Collects nodes; every result is named after its node."""

    def __init__(self, weights: Weights) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.tensors = [numpy_helper.from_array(v, name) for name, v in weights.items()]

    def op(self, kind: str, path: str, *inputs: str, result: str = "", **attributes: object) -> str:
        name = f"{path}/{kind}" if path else kind
        taken = sum(node.name == name or node.name.startswith(f"{name}_") for node in self.nodes)
        name = f"{name}_{taken}" if taken else name
        result = result or f"{name}_output"
        self.nodes.append(helper.make_node(kind, list(inputs), [result], name=name, **attributes))
        return result

    def constant(self, value: object, dtype: type) -> str:
        array = np.array(value, dtype)
        name = f"constant_{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(array, name))
        return name

    def linear(self, path: str, x: str) -> str:
        product = self.op("MatMul", path, x, f"{path}.weight")
        return self.op("Add", path, product, f"{path}.bias")

    def norm(self, path: str, x: str, result: str = "") -> str:
        scale, bias = f"{path}.weight", f"{path}.bias"
        return self.op("LayerNormalization", path, x, scale, bias, result=result, epsilon=1e-12)


def build_model(weights: Weights) -> onnx.ModelProto:
    """Build the graph; outputs `last_hidden_state` and `sentence_embedding`."""
    b = _Builder(weights)
    x = _embeddings(b)
    bias = _attention_bias(b)
    for layer in range(LAYERS):
        last = layer == LAYERS - 1
        x = _layer(b, f"encoder.layer.{layer}", x, bias, "last_hidden_state" if last else "")
    _head(b)
    axes = ["batch_size", "sequence_length"]
    values = [helper.make_tensor_value_info(name, TensorProto.INT64, axes) for name in INPUTS]
    hidden = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [*axes, HIDDEN])
    embedding = helper.make_tensor_value_info(
        "sentence_embedding", TensorProto.FLOAT, ["batch_size", HIDDEN]
    )
    graph = helper.make_graph(b.nodes, "tiny", values, [hidden, embedding], b.tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def _embeddings(b: _Builder) -> str:
    path = "embeddings"
    words = b.op("Gather", f"{path}.word_embeddings", f"{path}.word_embeddings.weight", INPUTS[0])
    kinds = b.op(
        "Gather", f"{path}.token_type_embeddings", f"{path}.token_type_embeddings.weight", INPUTS[2]
    )
    shape = b.op("Shape", path, INPUTS[0], start=1, end=2)
    length = b.op("Squeeze", path, shape, b.constant([0], np.int64))
    steps = b.op("Range", path, b.constant(0, np.int64), length, b.constant(1, np.int64))
    places = b.op(
        "Gather", f"{path}.position_embeddings", f"{path}.position_embeddings.weight", steps
    )
    total = b.op("Add", path, b.op("Add", path, words, kinds), places)
    return b.norm(f"{path}.LayerNorm", total)


def _attention_bias(b: _Builder) -> str:
    mask = b.op("Cast", "", INPUTS[1], to=TensorProto.FLOAT)
    mask = b.op("Unsqueeze", "", mask, b.constant([1, 2], np.int64))
    padding = b.op("Sub", "", b.constant(1.0, np.float32), mask)
    return b.op("Mul", "", padding, b.constant(MASKED, np.float32))


def _layer(b: _Builder, path: str, x: str, bias: str, result: str) -> str:
    attended = _attention(b, f"{path}.attention.self", x, bias)
    projected = b.linear(f"{path}.attention.output.dense", attended)
    output = f"{path}.attention.output"
    x = b.norm(f"{output}.LayerNorm", b.op("Add", output, projected, x))
    wide = b.op("Gelu", f"{path}.intermediate", b.linear(f"{path}.intermediate.dense", x))
    narrow = b.linear(f"{path}.output.dense", wide)
    return b.norm(f"{path}.output.LayerNorm", b.op("Add", f"{path}.output", narrow, x), result)


def _attention(b: _Builder, path: str, x: str, bias: str) -> str:
    split = b.constant([0, 0, HEADS, HIDDEN // HEADS], np.int64)
    heads = []
    for part, order in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])):
        rows = b.op("Reshape", path, b.linear(f"{path}.{part}", x), split)
        heads.append(b.op("Transpose", path, rows, perm=order))
    scores = b.op("MatMul", path, heads[0], heads[1])
    scale = b.constant(np.sqrt(HIDDEN / HEADS), np.float32)
    scores = b.op("Add", path, b.op("Div", path, scores, scale), bias)
    mixed = b.op("MatMul", path, b.op("Softmax", path, scores, axis=-1), heads[2])
    mixed = b.op("Transpose", path, mixed, perm=[0, 2, 1, 3])
    return b.op("Reshape", path, mixed, b.constant([0, 0, HIDDEN], np.int64))


def _head(b: _Builder) -> None:
    axis = b.constant([1], np.int64)
    mask = b.op("Cast", "pooling", INPUTS[1], to=TensorProto.FLOAT)
    mask = b.op("Unsqueeze", "pooling", mask, b.constant([-1], np.int64))
    kept = b.op("Mul", "pooling", "last_hidden_state", mask)
    total = b.op("ReduceSum", "pooling", kept, axis, keepdims=0)
    count = b.op("ReduceSum", "pooling", mask, axis, keepdims=0)
    count = b.op("Clip", "pooling", count, b.constant(1e-9, np.float32))
    mean = b.op("Div", "pooling", total, count)
    norm = b.op("ReduceL2", "normalize", mean, axis)
    norm = b.op("Clip", "normalize", norm, b.constant(1e-12, np.float32))
    b.op("Div", "normalize", mean, norm, result="sentence_embedding")


# ------------------------------------------------------------------------------ numpy


def _forward(weights: Weights, ids: np.ndarray) -> np.ndarray:
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    x = w["embeddings.word_embeddings.weight"][ids]
    x = x + w["embeddings.token_type_embeddings.weight"][0]
    x = x + w["embeddings.position_embeddings.weight"][: len(ids)]
    x = _norm(w, "embeddings.LayerNorm", x)
    for layer in range(LAYERS):
        path = f"encoder.layer.{layer}"
        attended = _linear(w, f"{path}.attention.output.dense", _attend(w, path, x))
        x = _norm(w, f"{path}.attention.output.LayerNorm", attended + x)
        wide = _gelu(_linear(w, f"{path}.intermediate.dense", x))
        x = _norm(w, f"{path}.output.LayerNorm", _linear(w, f"{path}.output.dense", wide) + x)
    mean = x.mean(axis=0)
    return mean / np.linalg.norm(mean)


def _attend(w: Weights, path: str, x: np.ndarray) -> np.ndarray:
    parts = (_linear(w, f"{path}.attention.self.{part}", x) for part in ("query", "key", "value"))
    query, key, value = (
        part.reshape(len(x), HEADS, HIDDEN // HEADS).swapaxes(0, 1) for part in parts
    )
    scores = query @ key.swapaxes(1, 2) / np.sqrt(HIDDEN / HEADS)
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed = scores / scores.sum(axis=-1, keepdims=True) @ value
    return mixed.swapaxes(0, 1).reshape(len(x), HIDDEN)


def _linear(w: Weights, path: str, x: np.ndarray) -> np.ndarray:
    return x @ w[f"{path}.weight"] + w[f"{path}.bias"]


def _norm(w: Weights, path: str, x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    spread = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-12)
    return centred / spread * w[f"{path}.weight"] + w[f"{path}.bias"]


def _gelu(x: np.ndarray) -> np.ndarray:
    from math import erf

    return 0.5 * x * (1 + np.vectorize(erf)(x / np.sqrt(2)))
