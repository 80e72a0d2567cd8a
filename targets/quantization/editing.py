"""Edits of a copied ONNX graph: new nodes in their place, new names, nothing unread left."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from targets.quantization.graph import GraphIndex, tensors_read


class GraphEditor:
    """A copy of a model that is being changed.

    Args:
        model: stays as it is.

    Raises:
        CompileError: a node has no name of its own.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = onnx.ModelProto()
        self._model.CopyFrom(model)
        graph = self._model.graph
        self.index = GraphIndex(graph)
        self._old = list(graph.node)
        self._position = {node.name: place for place, node in enumerate(self._old)}
        self._before: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        self._after: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._dropped: set[str] = set()  # outputs of nodes that are gone
        self._shapes = {one.name: one for one in (*graph.value_info, *graph.output, *graph.input)}
        self._names = {node.name for node in self._old} | self._tensor_names()

    def _tensor_names(self) -> set[str]:
        made = {out for node in self._old for out in node.output}
        return made | set(self._tensors) | {value.name for value in self._model.graph.input}

    def position(self, node_name: str) -> int:
        """Return the place of an original node in execution order."""
        return self._position[node_name]

    def node(self, name: str) -> onnx.NodeProto:
        """Return an original node; changing it changes the result."""
        node: onnx.NodeProto = self.index.nodes[name]
        return node

    def unique(self, name: str) -> str:
        """Return the name, or the first of name_1, name_2, … that nothing else has."""
        count = 0
        free = name
        while free in self._names:
            count += 1
            free = f"{name}_{count}"
        self._names.add(free)
        return free

    def store(self, name: str, values: NDArray[np.generic]) -> str:
        """Add a stored tensor under that name, or one like it; return the name."""
        name = self.unique(name)
        self._tensors[name] = numpy_helper.from_array(values, name)
        return name

    def insert(
        self,
        op_type: str,
        path: str,
        inputs: Sequence[str],
        output: str,
        *,
        before: str = "",
        after: str = "",
        **attributes: int | Sequence[int],
    ) -> onnx.NodeProto:
        """Add a node named `<path>/<op_type>` directly before or after an original node."""
        name = self.unique(f"{path}/{op_type}")
        node = helper.make_node(op_type, list(inputs), [output], name=name)
        for key, value in attributes.items():
            node.attribute.append(helper.make_attribute(key, value))
        (self._before[before] if before else self._after[after]).append(node)
        return node

    def describe(self, name: str, like: str, elem_type: int) -> None:
        """Say that a new tensor has the shape of a known one, and its type."""
        known = self._shapes.get(like)
        if known is not None:
            value = onnx.ValueInfoProto()
            value.CopyFrom(known)
            value.name = name
            value.type.tensor_type.elem_type = elem_type
            self._model.graph.value_info.append(value)

    def readers(self, name: str) -> list[onnx.NodeProto]:
        """Return the nodes that read a tensor as the graph stands now."""
        return [node for node in self._ordered() if name in tensors_read(node)]

    def drop_unread(self, name: str) -> None:
        """Remove a tensor that nothing reads any more, and what was there only to make it."""
        if name in self.index.outputs or self.readers(name):
            return
        self._tensors.pop(name, None)
        maker = self.index.producers.get(name)
        if maker is None or maker.output[0] in self._dropped:
            return
        if all(not self.readers(out) and out not in self.index.outputs for out in maker.output):
            self._dropped.update(maker.output)
            for read in maker.input:
                self.drop_unread(read)

    def finish(self) -> onnx.ModelProto:
        """Return the changed model; the editor must not be used after that."""
        graph = self._model.graph
        ordered = list(self._ordered())
        del graph.node[:]
        graph.node.extend(ordered)
        tensors = list(self._tensors.values())
        del graph.initializer[:]
        graph.initializer.extend(tensors)
        alive = {out for node in ordered for out in node.output} | set(self._tensors)
        described = [value for value in graph.value_info if value.name in alive]
        del graph.value_info[:]
        graph.value_info.extend(described)
        return self._model

    def _ordered(self) -> Iterator[onnx.NodeProto]:
        for node in self._old:
            if not self._dropped.isdisjoint(node.output):
                continue
            yield from self._before.get(node.name, ())
            yield node
            yield from self._after.get(node.name, ())
