"""Who makes and who reads each tensor of an ONNX graph, and edits that keep its order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from targets.errors import CompileError

FLOAT_TYPES = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)


class GraphIndex:
    """Makers, readers and constants of a graph as it stands; later edits are not seen.

    Args:
        graph: its nodes are in topological order; an initializer that is an input too may be
            overridden, so it counts as no constant.

    Raises:
        CompileError: a node has no name, or another one has the same.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.nodes = {node.name: node for node in graph.node}
        _require_names(graph)
        self.outputs = {value.name for value in graph.output}
        self.producers = {out: node for node in graph.node for out in node.output if out}
        self.readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in dict.fromkeys(tensors_read(node)):
                self.readers[name].append(node)
        inputs = {value.name for value in graph.input}
        self.tensors = {one.name: one for one in graph.initializer if one.name not in inputs}
        self.tensors |= _constant_nodes(graph.node)
        self._derived = _derived_constants(graph.node, self.tensors)

    def is_constant(self, name: str) -> bool:
        """Say whether a tensor is stored, or computed from stored tensors only."""
        return name in self.tensors or name in self._derived

    def only_reader(self, name: str) -> onnx.NodeProto | None:
        """Return the node that alone reads a tensor; None if there are several or none."""
        readers = self.readers.get(name, [])
        return readers[0] if len(readers) == 1 and name not in self.outputs else None

    def ancestors(self, name: str) -> frozenset[str]:
        """Return the names of all nodes that a tensor depends on."""
        found: set[str] = set()
        waiting = [name]
        while waiting:
            node = self.producers.get(waiting.pop())
            if node is not None and node.name not in found:
                found.add(node.name)
                waiting.extend(tensors_read(node))
        return frozenset(found)

    def descendants(self, name: str) -> frozenset[str]:
        """Return the names of all nodes that depend on a tensor."""
        found: set[str] = set()
        waiting = [name]
        while waiting:
            for node in self.readers.get(waiting.pop(), []):
                if node.name not in found:
                    found.add(node.name)
                    waiting.extend(out for out in node.output if out)
        return frozenset(found)


def module_path(node_name: str) -> str:
    """Return the path of the PyTorch module in a node's name; a name without one is itself.

    "encoder.layer.0.output.dense/MatMul" and, as torch's older exporter spells it,
    "/encoder/layer.0/output/dense/MatMul" both give "encoder.layer.0.output.dense".
    """
    path, slash, _ = node_name.rpartition("/")
    return path.strip("/").replace("/", ".") if slash else node_name


def attribute(node: onnx.NodeProto, name: str, default: object) -> object:
    """Return the value of a node's attribute, or the default that the operator has."""
    for one in node.attribute:
        if one.name == name:
            return helper.get_attribute_value(one)
    return default


def tensors_read(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the names that a node reads, inside its subgraphs too; names may repeat."""
    yield from (name for name in node.input if name)
    for one in node.attribute:
        for graph in (*([one.g] if one.HasField("g") else []), *one.graphs):
            for inner in graph.node:
                yield from tensors_read(inner)


def to_array(tensor: onnx.TensorProto) -> NDArray[np.generic]:
    """Return a stored tensor's values.

    Raises:
        CompileError: they lie in another file and were not loaded.
    """
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise CompileError(
            f"the values of {tensor.name!r} are not in memory",
            why="the graph was loaded without its external data",
            hint="load it with load_external_data=True",
        )
    return np.asarray(numpy_helper.to_array(tensor))


def to_floats(tensor: onnx.TensorProto) -> NDArray[np.floating]:
    """Return the values of a tensor stored in one of `FLOAT_TYPES`.

    Raises:
        CompileError: they lie in another file and were not loaded.
    """
    values: NDArray[np.floating] = to_array(tensor)  # type: ignore[assignment]
    return values


def opset_version(model: onnx.ModelProto) -> int:
    """Return the version of ONNX's own operators that a model uses."""
    versions = [one.version for one in model.opset_import if one.domain in ("", "ai.onnx")]
    return max(versions, default=0)


def _require_names(graph: onnx.GraphProto) -> None:
    seen: set[str] = set()
    for node in graph.node:
        if not node.name or node.name in seen:
            nameless = f"a {node.op_type} has no name"
            raise CompileError(
                f"two nodes are named {node.name!r}" if node.name else nameless,
                why="layers are known by the names of their nodes",
                hint="export the model again, or give every node a name of its own",
            )
        seen.add(node.name)


def _constant_nodes(nodes: Iterable[onnx.NodeProto]) -> dict[str, onnx.TensorProto]:
    found: dict[str, onnx.TensorProto] = {}
    for node in nodes:
        value = attribute(node, "value", None) if node.op_type == "Constant" else None
        if isinstance(value, onnx.TensorProto):
            found[node.output[0]] = value
    return found


def _derived_constants(
    nodes: Iterable[onnx.NodeProto], stored: dict[str, onnx.TensorProto]
) -> set[str]:
    derived: set[str] = set()
    for node in nodes:
        read = list(tensors_read(node))
        known = all(name in stored or name in derived for name in read)
        if known and (read or node.op_type == "Constant"):
            derived.update(node.output)
    return derived
