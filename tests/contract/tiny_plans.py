"""The int8 forms of a small encoder's layers, found as the product finds them."""

from __future__ import annotations

from pathlib import Path

import onnx

from exporter.optimize.activation_sample import ActivationSample
from exporter.optimize.calibrate import Corpus, PassSettings, calibrate
from exporter.steps.changed_graph import changed_graph
from targets.contract import OnnxArtifact, QdqScheme, TokenSequences
from targets.hardware.precisions import adds_pairs_with_saturation
from targets.quantization.attention import plan_attention, read_attention
from targets.quantization.layers import read_layers
from targets.quantization.plans_file import Prepared, save_prepared
from targets.quantization.prepare import Method, Preparation
from targets.quantization.table import CalibrationTable
from targets.registry import open_device


def calibrated_table(
    graph: OnnxArtifact, tokens: TokenSequences, *, gram: bool = True, attention: bool = False
) -> CalibrationTable:
    """Statistics of every layer's input over the texts."""
    corpus = Corpus(
        texts=tokens,
        pad_token_id=tokens.pad_token_id,
        tokenizer_sha256="t",
        sha256=tokens.sha256,
    )
    return calibrate(graph, corpus, PassSettings(gram=gram, attention=attention, num_threads=1))


def write_plans(path: Path, graph: OnnxArtifact, tokens: TokenSequences, scheme: QdqScheme) -> Path:
    """Centre, smooth, round with compensation, and write the plans; the path again."""
    model = onnx.load(graph.path)
    layers = read_layers(model)
    table = calibrated_table(graph, tokens, attention=scheme.attention)
    sample = ActivationSample(graph, tokens, num_threads=1)
    changed = changed_graph(model, layers, table, scheme, sample)
    preparation = Preparation(changed.model, layers, changed.table, changed.divisors)
    method = Method(integers=scheme.integers, symmetric=scheme.symmetric)
    saturates = adds_pairs_with_saturation(open_device("local").hardware())
    plans = preparation.plans(method, reduce_range=lambda _: saturates and not scheme.symmetric)
    attention = (
        plan_attention(read_attention(model, layers), table, "minmax") if scheme.attention else ()
    )
    prepared = Prepared(
        plans=plans, copies=changed.copies, shifts=changed.shifts, attention=attention
    )
    save_prepared(prepared, path)
    return path
