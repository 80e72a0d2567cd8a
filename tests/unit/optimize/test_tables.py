"""What embedding tables cost in fewer bytes, on the tiny encoder, against plain numpy."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from contract.tiny_graph import VOCABULARY, make_tokens, write_tiny_graph
from onnx import numpy_helper

from exporter.optimize.probe import drift, embed_graph
from exporter.optimize.tables import measure_tables
from targets.quantization.layers import read_layers

TABLE = "embeddings.word_embeddings.weight"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    graph = write_tiny_graph(tmp_path_factory.mktemp("graph")).artifact
    return graph, onnx.load(graph.path), make_tokens(20)


def with_table(model: onnx.ModelProto, change) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    (stored,) = (one for one in changed.graph.initializer if one.name == TABLE)
    values = change(numpy_helper.to_array(stored))
    stored.CopyFrom(numpy_helper.from_array(values.astype(np.float32), TABLE))
    return changed


def rounded_to_int8(table: np.ndarray) -> np.ndarray:
    scale = np.abs(table).max(axis=1, keepdims=True) / 127
    return np.rint(table / scale) * scale


def test_drifts_are_those_of_the_rounded_tables(tiny, monkeypatch):
    graph, model, tokens = tiny
    for module in ("exporter.optimize.tables", "targets.quantization.embeddings_qdq"):
        monkeypatch.setattr(f"{module}.LARGE_TABLE", VOCABULARY)
    reference = embed_graph(model, graph, tokens, 1)
    found = measure_tables(
        graph, model, read_layers(model), tokens, reference, ("float16", "int8"), 1
    )
    by_hand = (lambda table: table.astype(np.float16), rounded_to_int8)
    for one, change in zip(found, by_hand, strict=True):
        rows = embed_graph(with_table(model, change), graph, tokens, 1)
        assert one.drift == pytest.approx(drift(reference, rows), rel=0.05, abs=1e-9)
    half, eighth = found
    assert half.drift < eighth.drift
    assert half.num_bytes * 2 == half.float_bytes == eighth.float_bytes
    assert eighth.num_bytes < half.num_bytes


def test_small_tables_stay_and_cost_nothing(tiny):
    graph, model, tokens = tiny
    reference = embed_graph(model, graph, tokens, 1)
    assert not measure_tables(graph, model, read_layers(model), tokens, reference, ("int8",), 1)
