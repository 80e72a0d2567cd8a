"""What embedding tables cost in fewer bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import onnx

from exporter.optimize.probe import drift, embed_graph
from exporter.values import TableSensitivity
from targets.contract import FloatArray, OnnxArtifact, TokenSequences
from targets.quantization.embeddings_qdq import LARGE_TABLE
from targets.quantization.graph import to_array
from targets.quantization.layers import EncoderLayers
from targets.quantization.plan import QdqPlan
from targets.quantization.qdq import insert_qdq

TablePrecision = Literal["float16", "int8"]


def measure_tables(
    graph: OnnxArtifact,
    model: onnx.ModelProto,
    layers: EncoderLayers,
    tokens: TokenSequences,
    reference: FloatArray,
    precisions: Sequence[TablePrecision],
    num_threads: int,
) -> tuple[TableSensitivity, ...]:
    """Store large tables in one precision at a time, all linear layers in float.

    Args:
        graph: the FP32 graph.
        model: the same, its weights in memory; it is not changed.
        layers: what `read_layers` found in it.
        tokens: texts that no statistic was taken from.
        reference: their embeddings in float, shape [num_texts, dim].
        precisions: what tables are stored in.
        num_threads: of the sessions.
    """
    names = {one.weight for one in layers.embeddings if one.num_rows >= LARGE_TABLE}
    if not names:
        return ()
    shapes = [to_array(one).shape for one in model.graph.initializer if one.name in names]
    num_values = sum(rows * dim for rows, dim in shapes)
    num_rows = sum(rows for rows, _ in shapes)
    sizes = {"float16": 2 * num_values, "int8": num_values + 4 * num_rows}
    found = []
    for precision in precisions:
        stored = insert_qdq(model, QdqPlan(layers=(), embeddings=precision))
        rows = embed_graph(stored, graph, tokens, num_threads)
        found.append(
            TableSensitivity(
                precision=precision,
                drift=max(drift(reference, rows), 0.0),
                num_bytes=sizes[precision],
                float_bytes=4 * num_values,
            )
        )
    return tuple(found)
