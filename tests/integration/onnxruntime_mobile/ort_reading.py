"""Changing graphs, and reading `.ort` files and operator lists without the code under test."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from flatbuffers import number_types
from flatbuffers.table import Table
from onnx import helper

from targets.contract import TokenSequences

# Field numbers of `onnxruntime/core/flatbuffers/schema/ort.fbs`, format version 6.
_SESSION_MODEL, _MODEL_GRAPH, _GRAPH_NODES = 1, 7, 2
_NODE_DOMAIN, _NODE_SINCE_VERSION, _NODE_OP_TYPE = 2, 3, 5

Operator = tuple[str, int, str]
"""Domain, version of the operator, name."""


def with_operator(model: Path, op_type: str, folder: Path) -> Path:
    """The graph with one more operator behind its embedding."""
    graph = onnx.load(model)
    last = next(one for one in graph.graph.node if "sentence_embedding" in one.output)
    last.output[0] = "before"
    graph.graph.node.append(
        helper.make_node(op_type, ["before"], ["sentence_embedding"], name=op_type)
    )
    path = folder / "planted.onnx"
    onnx.save(graph, path)
    return path


def nodes_of(path: Path) -> Counter[Operator]:
    """Count the nodes of a file in ORT format."""
    content = bytearray(path.read_bytes())
    root = Table(content, int.from_bytes(content[:4], "little"))
    graph = _child(_child(root, _SESSION_MODEL), _MODEL_GRAPH)
    place = graph.Offset(4 + 2 * _GRAPH_NODES)
    start = graph.Vector(place)
    nodes = [
        Table(content, graph.Indirect(start + 4 * number))
        for number in range(graph.VectorLen(place))
    ]
    return Counter(
        (
            _text(node, _NODE_DOMAIN) or "ai.onnx",
            node.GetSlot(4 + 2 * _NODE_SINCE_VERSION, 0, number_types.Int32Flags),
            _text(node, _NODE_OP_TYPE),
        )
        for node in nodes
    )


def listed_in(config: str) -> set[Operator]:
    """Return the operators of a reduced-build configuration."""
    return {
        (domain, int(version), name)
        for line in config.splitlines()
        if line and not line.startswith("#")
        for domain, version, names in [line.split(";", 2)]
        for name in re.sub(r"\{.*?\}\}", "", names).split(",")
    }


def types_of(config: str, name: str) -> dict[str, dict[str, list[str]]]:
    """Return the types that a configuration keeps for one operator."""
    (found,) = re.findall(rf"\b{name}(\{{.*?\}}\}})", config)
    return json.loads(found)


def feeds_of(tokens: TokenSequences, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """One batch of all texts, padded to the longest."""
    shape = (len(tokens), int(tokens.lengths.max()))
    ids = np.full(shape, tokens.pad_token_id, np.int64)
    mask = np.zeros(shape, np.int64)
    for row, text in enumerate(tokens):
        ids[row, : len(text)], mask[row, : len(text)] = text, 1
    values = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    return {name: values[name] for name in names}


def run_as_arm(path: Path, feeds: dict[str, np.ndarray]) -> np.ndarray:
    """Run a file with one thread, and Q/DQ fused as ONNX Runtime does on ARM."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(["sentence_embedding"], feeds)[0]


def _child(table: Table, field: int) -> Table:
    return Table(table.Bytes, table.Indirect(table.Pos + table.Offset(4 + 2 * field)))


def _text(table: Table, field: int) -> str:
    place = table.Offset(4 + 2 * field)
    return table.String(table.Pos + place).decode() if place else ""
