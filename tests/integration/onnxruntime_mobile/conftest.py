"""The tiny encoder of the contract tests, in FP32 and with Q/DQ nodes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from contract.tiny_graph import TinyGraph, make_tokens, write_tiny_graph
from contract.tiny_plans import write_plans

from targets.contract import IntegerScheme, QdqScheme
from targets.onnxruntime.ort_format import convert
from targets.quantization.plan import QdqPlan
from targets.quantization.plans_file import load_changed, load_prepared
from targets.quantization.qdq import insert_qdq


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TinyGraph:
    return write_tiny_graph(tmp_path_factory.mktemp("tiny-mobile"))


@pytest.fixture(scope="session")
def quantized(
    encoder: TinyGraph, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[IntegerScheme], Path]:
    """Write the encoder with Q/DQ at all linear layers, each scheme once."""
    folder = tmp_path_factory.mktemp("qdq-mobile")

    def write(integers: IntegerScheme) -> Path:
        path = folder / integers / "model.onnx"
        if not path.exists():
            path.parent.mkdir()
            plans = folder / f"{integers}.npz"
            write_plans(plans, encoder.artifact, make_tokens(), QdqScheme(integers=integers))
            prepared = load_prepared(plans)
            model, _ = load_changed(encoder.artifact.path, prepared)
            onnx.save(insert_qdq(model, QdqPlan(layers=prepared.plans)), path)
        return path

    return write


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], tuple[Path, str]]:
    """Convert a graph, once however many tests ask: the `.ort` and its list of operators."""
    done: dict[Path, tuple[Path, str]] = {}

    def run(model: Path) -> tuple[Path, str]:
        if model not in done:
            folder = tmp_path_factory.mktemp("ort")
            ort_model, config = folder / "model.ort", folder / "operators.config"
            convert(model, ort_model, config)
            done[model] = ort_model, config.read_text("utf-8")
        return done[model]

    return run
