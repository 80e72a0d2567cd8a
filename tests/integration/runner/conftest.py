"""Tiny encoders as OpenVINO IR: token vectors, one linear layer, masked mean, L2 norm."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import targets.openvino.session
from targets.contract import RunPlan, TokenSequences
from targets.devices.client import RunnerClient
from targets.devices.local import LocalDevice

VOCABULARY, DIM, PAD_ID = 1024, 64, 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyEncoder:
    """Weights of the tiny encoder and its IR files."""

    table: np.ndarray
    weight: np.ndarray
    float_ir: Path
    int8_ir: Path
    compressed_ir: Path

    def embed(self, tokens: TokenSequences) -> np.ndarray:
        """The same model in numpy, float64, text by text."""
        rows = np.stack([(self.table[ids] @ self.weight).mean(axis=0) for ids in tokens])
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="session")
def openvino() -> ModuleType:
    sys.modules.setdefault("openvino_telemetry", None)
    return pytest.importorskip("openvino", reason="pip install 'embedding-exporter[openvino]'")


@pytest.fixture(scope="session")
def tiny(openvino: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> TinyEncoder:
    folder = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(11)
    table = rng.normal(size=(VOCABULARY, DIM)).astype(np.float32)
    weight = rng.normal(size=(DIM, DIM)).astype(np.float32)
    kinds = {"float_ir": float_linear, "int8_ir": int8_linear, "compressed_ir": compressed_linear}
    paths = {name: folder / f"{name}.xml" for name in kinds}
    for name, linear in kinds.items():
        graph = build_graph(openvino, table, lambda x, linear=linear: linear(openvino, x, weight))
        openvino.save_model(graph, paths[name], compress_to_fp16=False)
    return TinyEncoder(table=table, weight=weight, **paths)


def build_graph(ov: ModuleType, table: np.ndarray, linear: Callable) -> object:
    ops = ov.opset13
    names = ("input_ids", "attention_mask", "token_type_ids")
    ids, mask, types = (ops.parameter([-1, -1], np.int64, name=name) for name in names)
    vectors = ops.gather(ops.constant(table), ids, np.int64(0))
    no_types = ops.unsqueeze(ops.convert(types, "f32"), np.int64(2))
    hidden = linear(ops.add(vectors, ops.multiply(no_types, np.float32(0.5))))
    weights = ops.unsqueeze(ops.convert(mask, "f32"), np.int64(2))
    total = ops.reduce_sum(ops.multiply(hidden, weights), np.int64([1]), False)
    mean = ops.divide(total, ops.maximum(ops.reduce_sum(weights, np.int64([1])), np.float32(1e-9)))
    unit = ops.normalize_l2(mean, np.int64([1]), 1e-12, "max")
    graph = ov.Model([ops.result(hidden), ops.result(unit)], [ids, mask, types], "tiny")
    ports = (*graph.inputs, *graph.outputs)
    for port, name in zip(ports, (*names, "last_hidden_state", "sentence_embedding"), strict=True):
        port.get_tensor().set_names({name})
    return graph


def float_linear(ov: ModuleType, x: object, weight: np.ndarray) -> object:
    return ov.opset13.matmul(x, ov.opset13.constant(weight), False, False)


def int8_linear(ov: ModuleType, x: object, weight: np.ndarray) -> object:
    """Symmetric FakeQuantize on both sides, as a quantizer writes it."""
    ops = ov.opset13

    def quantize(value: object, low: float, high: float, levels: int) -> object:
        ends = np.float32(low), np.float32(high)
        return ops.fake_quantize(value, *ends, *ends, levels)

    limit = float(abs(weight).max())
    weights = quantize(ops.constant(weight), -limit, limit, 255)
    return ops.matmul(quantize(x, -4.0, 4.0 * 127 / 128, 256), weights, False, False)


def compressed_linear(ov: ModuleType, x: object, weight: np.ndarray) -> object:
    """Weights held in int8, multiplied in float."""
    ops = ov.opset13
    scale = (abs(weight).max(axis=0, keepdims=True) / 127).astype(np.float32)
    held = ops.constant(np.round(weight / scale).astype(np.int8))
    return ops.matmul(x, ops.multiply(ops.convert(held, "f32"), scale), False, False)


@pytest.fixture
def make_plan(tiny: TinyEncoder) -> Callable[..., RunPlan]:
    def make(**changes) -> RunPlan:
        plan = RunPlan(
            adapter=Path(targets.openvino.session.__file__),
            model=tiny.float_ir,
            inputs=("input_ids", "attention_mask", "token_type_ids"),
            output="sentence_embedding",
            pad_token_id=PAD_ID,
            embedding_dim=DIM,
            max_seq_length=64,
            options={"INFERENCE_PRECISION_HINT": "f32"},
        )
        return replace(plan, **changes)

    return make


@pytest.fixture
def start(make_plan: Callable[..., RunPlan]) -> Iterator[Callable[..., RunnerClient]]:
    """Start a runner on a tiny encoder; closed behind the test."""
    started: list[RunnerClient] = []

    def start_one(device: LocalDevice | None = None, **changes) -> RunnerClient:
        started.append((device or LocalDevice()).start(make_plan(**changes), 1))
        return started[-1]

    yield start_one
    for runner in started:
        runner.close()


@pytest.fixture(scope="session")
def texts() -> TokenSequences:
    rng = np.random.default_rng(5)
    lengths = rng.integers(3, 65, 24)
    return TokenSequences.from_lists([rng.integers(5, 900, n) for n in lengths], PAD_ID)
