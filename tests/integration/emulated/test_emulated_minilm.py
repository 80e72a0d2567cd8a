"""The real encoder on emulated CPUs: float32, int8, and what int8 loses without VNNI."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from emulated_plans import make_plan

from exporter.source.corpus import load_calibration
from exporter.source.encoder import load_encoder
from exporter.source.onnx_export import export_onnx
from exporter.source.resolve import resolve_encoder
from exporter.source.tokenizer import load_tokenizer
from targets.contract import ALONE, Device, FloatArray, OnnxArtifact, RunPlan, TokenSequences
from targets.devices.local import LocalDevice

pytestmark = [pytest.mark.qemu, pytest.mark.model, pytest.mark.slow]

NUM_CALIBRATION, LONGEST = 16, 48
TEXTS = (
    "A man is eating food.",
    "How do I reset my password?",
    "Paris is the capital of France, and its largest city.",
    "Return the sum of a list of numbers.",
)


class Calibration:
    """Feeds texts one by one (ONNX Runtime's CalibrationDataReader)."""

    def __init__(self, graph: OnnxArtifact, tokens: TokenSequences) -> None:
        self._feeds = self._iterate([one.name for one in graph.inputs], tokens)

    @staticmethod
    def _iterate(names: list[str], tokens: TokenSequences) -> Iterator[dict[str, np.ndarray]]:
        for ids in tokens:
            row = ids[None, :LONGEST].astype(np.int64)
            known = (row, np.ones_like(row), np.zeros_like(row))
            feeds = dict(zip(("input_ids", "attention_mask", "token_type_ids"), known, strict=True))
            yield {name: feeds[name] for name in names}

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


@pytest.fixture(scope="module")
def graph(minilm_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> OnnxArtifact:
    encoder = load_encoder(resolve_encoder(str(minilm_dir)))
    return export_onnx(encoder, tmp_path_factory.mktemp("minilm"))


@pytest.fixture(scope="module")
def encode(minilm_dir: Path) -> Callable[[list[str]], TokenSequences]:
    return load_tokenizer(resolve_encoder(str(minilm_dir))).encode


@pytest.fixture(scope="module")
def model(graph: OnnxArtifact, encode) -> Callable[[str], Path]:
    """The float32 graph, or what `quantize_static` gives by the book: Q/DQ, U8S8, per channel."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    texts = load_calibration(None, num_samples=NUM_CALIBRATION, seed=0).texts

    def find(name: str) -> Path:
        path = graph.path if name == "float32" else graph.path.with_name(f"{name}.onnx")
        if not path.exists():
            logging.disable()
            quantize_static(
                graph.path,
                path,
                Calibration(graph, encode(texts)),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=name == "u8s7",
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                op_types_to_quantize=["MatMul"],
            )
            logging.disable(logging.NOTSET)
        return path

    return find


@pytest.fixture(scope="module")
def embed(graph: OnnxArtifact, encode) -> Callable[[Device, Path], FloatArray]:
    names = tuple(one.name for one in graph.inputs)

    def run(device: Device, model: Path) -> FloatArray:
        tokens = encode(list(TEXTS))
        plan: RunPlan = make_plan(model, names, graph.embedding_dim, graph.max_seq_length)
        with device.start(replace(plan, length_multiple=1), 1) as runner:
            return runner.embed(tokens, ALONE)

    return run


def cosines(first: FloatArray, second: FloatArray) -> FloatArray:
    return (first * second).sum(axis=1)


@pytest.fixture(scope="module")
def emulated(emulate, embed, model) -> dict[tuple[str, str], FloatArray]:
    """Embeddings by CPU and model; devices side by side."""
    runs = (
        ("neoverse-n1", "float32"),
        ("neoverse-n1", "u8s8"),
        ("haswell", "u8s8"),
        ("haswell", "u8s7"),
    )
    jobs = [(emulate(cpu), model(name)) for cpu, name in runs]
    with ThreadPoolExecutor(2) as threads:
        return dict(zip(runs, threads.map(embed, *zip(*jobs, strict=True)), strict=True))


def test_float32_on_arm_is_float32_here(emulated, embed, model):
    here = embed(LocalDevice(), model("float32"))
    np.testing.assert_allclose(emulated["neoverse-n1", "float32"], here, atol=1e-5)


def test_int8_is_exact_on_arm_and_saturates_on_haswell(emulated, embed, model):
    """Products of U8S8 pairs saturate 16 bits without VNNI; ARM and VNNI add in 32 bits."""
    arm, haswell = emulated["neoverse-n1", "u8s8"], emulated["haswell", "u8s8"]
    assert cosines(arm, haswell).mean() < 0.97
    here = LocalDevice()
    if {"avx512_vnni", "avx_vnni", "asimddp"} & here.hardware().features:
        np.testing.assert_allclose(arm, embed(here, model("u8s8")), atol=1e-5)


def test_seven_bit_weights_do_not_saturate_on_haswell(emulated, embed, model):
    """The twin of the test above: the damage is the saturation's, not the emulation's."""
    here = embed(LocalDevice(), model("u8s7"))
    np.testing.assert_allclose(emulated["haswell", "u8s7"], here, atol=1e-5)
