"""Stable names in the graph: nodes and weights carry the path of their PyTorch module.

`encoder.layer.0.attention.self.query/MatMul` says where a node comes from, in every tool and
after every rewrite that keeps names; recipes pick layers by that path. Nothing of the machine or
of the exporter's counters stays in the file, so the same model gives the same bytes.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from exporter.source.torch_module import TRANSFORMER

if TYPE_CHECKING:
    import onnx_ir

_SCOPES = "pkg.torch.onnx.name_scopes"
_CLASSES = "pkg.torch.onnx.class_hierarchy"
# Sentence Transformers hangs the Transformers model under `model` (6.x) or `auto_model` (5.x).
_WRAPPERS = (f"{TRANSFORMER}.model.", f"{TRANSFORMER}.auto_model.")
# Scopes that the exporter makes up for nodes without a module.
_NO_MODULE = "_empty_nn_module_stack"
_WEIGHT_OPS = {"MatMul": 1, "Gemm": 1}


def name_by_module(model: onnx_ir.Model) -> None:
    """Rename every node, intermediate value and initializer, and drop foreign metadata."""
    graph = model.graph
    fixed = {value.name for value in (*graph.inputs, *graph.outputs)}
    counts: Counter[str] = Counter()
    for node in graph.all_nodes():
        path = module_path(node.metadata_props.get(_SCOPES, ""))
        node.name = _numbered(f"{path}/{node.op_type}" if path else node.op_type, counts)
        for index, output in enumerate(node.outputs):
            if output.name not in fixed:
                output.name = f"{node.name}_output_{index}"
    _name_initializers(graph)
    _drop_foreign_metadata(model)


def module_path(scopes: str) -> str:
    """Return the innermost module's path from an exporter's scope list, without wrappers.

    Args:
        scopes: the repr of a list: "['', 'transformer', 'transformer.model.embeddings', 'add']".
    """
    names = ast.literal_eval(scopes) if scopes else []
    path = str(names[-2]) if len(names) > 1 else ""
    return "" if path.startswith(_NO_MODULE) else strip_wrappers(path)


def strip_wrappers(name: str) -> str:
    """Remove the wrapper in front of the transformer's own module path."""
    for wrapper in _WRAPPERS:
        if name.startswith(wrapper):
            return name.removeprefix(wrapper)
    return name


def _numbered(name: str, counts: Counter[str]) -> str:
    """Make a name unique: the first keeps it, the next are name_1, name_2."""
    counts[name] += 1
    return name if counts[name] == 1 else f"{name}_{counts[name] - 1}"


def _name_initializers(graph: onnx_ir.Graph) -> None:
    counts: Counter[str] = Counter()
    position = {node: index for index, node in enumerate(graph.all_nodes())}
    for value in list(graph.initializers.values()):
        uses = sorted((position[node], index, node) for node, index in value.uses())
        value.name = _numbered(_initializer_name(value.name or "", uses), counts)


def _initializer_name(name: str, uses: Sequence[tuple[int, int, onnx_ir.Node]]) -> str:
    """Name a weight by its parameter, a folded constant by the first node that reads it.

    The exporter folds the transposition of linear weights into new constants; they are named
    `<module>.weight_transposed`.
    """
    if "." in name:
        return strip_wrappers(name)
    if not uses:
        return name
    _, index, node = uses[0]
    path, _, operation = (node.name or "").rpartition("/")
    if path and _WEIGHT_OPS.get(node.op_type) == index and len(uses) == 1:
        return f"{path}.weight_transposed"
    return f"{path}/{operation}_constant_{index}" if path else f"{operation}_constant_{index}"


def _drop_foreign_metadata(model: onnx_ir.Model) -> None:
    """Keep module paths and classes; stack traces name files of this machine."""
    graph = model.graph
    model.metadata_props.clear()
    graph.metadata_props.clear()
    model.doc_string = graph.doc_string = None
    for node in graph.all_nodes():
        kept = {k: v for k, v in node.metadata_props.items() if k in (_SCOPES, _CLASSES)}
        node.metadata_props.clear()
        node.metadata_props.update(kept)
        node.doc_string = None
        for output in node.outputs:
            output.metadata_props.clear()
            output.doc_string = None
    for value in (*graph.inputs, *graph.initializers.values()):
        value.metadata_props.clear()
        value.doc_string = None
