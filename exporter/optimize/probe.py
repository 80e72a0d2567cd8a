"""One ONNX Runtime session in which every linear layer can be int8 or float, call by call.

Ranges, integers and biases are inputs of the graph, so whatever a recipe or a calibrator would do
is tried without building another session. Numbers are those of the Q/DQ graph; speed is not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from targets.contract import FloatArray, OnnxArtifact, TokenSequences
from targets.errors import CalibrationError
from targets.quantization.graph import to_array
from targets.quantization.integers import activation_parameters
from targets.quantization.layers import EncoderLayers, LinearLayer
from targets.quantization.plan import LayerPlan

EMBEDDING = "sentence_embedding"
_MAX_BATCH_TOKENS = 256
_FLOAT = np.dtype(np.float32)
Feed = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class _Switch:
    """Names of the graph inputs that one layer got."""

    scale: str
    zero_point: str
    factor: str
    on: str

    @classmethod
    def of(cls, layer: LinearLayer) -> _Switch:
        return cls(*(f"{layer.node}/{part}" for part in ("scale", "zero_point", "factor", "on")))


class Probe:
    """The float graph with switches.

    Args:
        graph: the FP32 graph.
        model: the same, its weights in memory; it is not changed.
        layers: what `read_layers` found in it.
        signed: activations are int8, not uint8.
        num_threads: of the session.
    """

    def __init__(
        self,
        graph: OnnxArtifact,
        model: onnx.ModelProto,
        layers: EncoderLayers,
        *,
        signed: bool,
        num_threads: int,
    ) -> None:
        self._inputs = [tensor.name for tensor in graph.inputs]
        self._weights = {one.name: to_array(one) for one in model.graph.initializer}
        self._layers = [one for one in layers.linears if _is_own(model, one)]
        self._signed = signed
        self._session = _open(_with_switches(model, self._layers, signed), num_threads)

    @property
    def layers(self) -> tuple[LinearLayer, ...]:
        """The layers that have a switch: those whose weight is nobody else's."""
        return tuple(self._layers)

    def embed(self, tokens: TokenSequences, plans: Sequence[LayerPlan] = ()) -> FloatArray:
        """Embed texts with the planned layers in int8 and the others in float.

        Args:
            tokens: at least one text.
            plans: int8 forms of layers; those without a switch are passed over.

        Returns:
            Rows in the order given, shape [num_texts, dim], float32.
        """
        return _embedded(self._session, tokens, self._inputs, self._feed(plans))

    def _feed(self, plans: Sequence[LayerPlan]) -> Feed:
        feed: Feed = {}
        chosen = {plan.layer.node: plan for plan in plans}
        for layer in self._layers:
            plan = chosen.get(layer.node)
            feed |= self._off(layer) if plan is None else self._on(plan)
        return feed

    def _off(self, layer: LinearLayer) -> Feed:
        switch, weight = _Switch.of(layer), self._weights[layer.weight]
        feed: Feed = {
            switch.scale: np.array(1, np.float32),
            switch.zero_point: np.array(0, np.int8 if self._signed else np.uint8),
            switch.factor: np.ones(weight.shape[1 - layer.output_axis], np.float32),
            switch.on: np.array(False),
            layer.weight: weight,
        }
        if layer.bias is not None:
            feed[layer.bias] = self._weights[layer.bias]
        return feed

    def _on(self, plan: LayerPlan) -> Feed:
        layer, switch = plan.layer, _Switch.of(plan.layer)
        if plan.weight_integers is None or plan.weight_scale is None:
            raise CalibrationError(f"{layer.path}: a plan without integers cannot be tried")
        parameters = activation_parameters(
            plan.activation, plan.integers, symmetric=plan.symmetric, dtype=_FLOAT
        )
        steps = np.expand_dims(plan.weight_scale, 1 - layer.output_axis)
        feed = self._off(layer) | {
            switch.scale: parameters.scale,
            switch.zero_point: parameters.zero_point,
            switch.on: np.array(True),
            layer.weight: np.asarray(plan.weight_integers * steps, np.float32),
        }
        if plan.divisor is not None:
            # multiplied as the Q/DQ graph does it: one bit may decide which way a value rounds
            feed[switch.factor] = np.asarray(1.0 / plan.divisor, np.float32)
        if plan.bias is not None and layer.bias is not None:
            feed[layer.bias] = plan.bias.reshape(self._weights[layer.bias].shape)
        return feed


def embed_graph(
    model: onnx.ModelProto, graph: OnnxArtifact, tokens: TokenSequences, num_threads: int
) -> FloatArray:
    """Embed texts with a Q/DQ graph, its arithmetic as it is written.

    ONNX Runtime's own integer kernels are kept out: on CPUs without VNNI they add pairs of
    products with saturation, which the runtime that the graph is for does not.

    Args:
        model: the graph, its weights in memory.
        graph: the float graph that it was made from, for its inputs.
        tokens: at least one text.
        num_threads: of the session.

    Returns:
        Rows in the order given, shape [num_texts, dim], float32.
    """
    session = _open(model, num_threads, {"session.disable_quant_qdq": "1"})
    return _embedded(session, tokens, [tensor.name for tensor in graph.inputs], {})


def drift(reference: FloatArray, rows: FloatArray) -> float:
    """Return 1 - mean cosine between two embeddings of the same texts, shape [num_texts, dim]."""
    left, right = reference.astype(np.float64), rows.astype(np.float64)
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    cosine = np.einsum("ij,ij->i", left, right) / np.maximum(norms, np.finfo(np.float64).tiny)
    return float(1.0 - np.nan_to_num(cosine, nan=-1.0).mean())


# ----------------------------------------------------------------------------- the graph


def _is_own(model: onnx.ModelProto, layer: LinearLayer) -> bool:
    """Say whether weight and bias are read by this layer alone, so that they can be inputs."""
    names = [layer.weight, *([] if layer.bias is None else [layer.bias])]
    readers = [name for node in model.graph.node for name in node.input if name in names]
    return len(readers) == len(names)


def _with_switches(
    model: onnx.ModelProto, layers: Sequence[LinearLayer], signed: bool
) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    fed = {layer.weight for layer in layers} | {one.bias for one in layers if one.bias}
    shapes = {one.name: list(one.dims) for one in graph.initializer if one.name in fed}
    kept = [one for one in graph.initializer if one.name not in fed]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    graph.input.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    )
    switched = {layer.node: layer for layer in layers}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.name in switched:
            nodes.extend(_switch_nodes(graph, node, switched[node.name], signed))
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return changed


def _switch_nodes(
    graph: onnx.GraphProto, node: onnx.NodeProto, layer: LinearLayer, signed: bool
) -> list[onnx.NodeProto]:
    """Make a layer read its activation smoothed and rounded, or as it is."""
    switch, source = _Switch.of(layer), layer.activation
    integer = TensorProto.INT8 if signed else TensorProto.UINT8
    graph.input.extend(
        [
            helper.make_tensor_value_info(switch.scale, TensorProto.FLOAT, []),
            helper.make_tensor_value_info(switch.zero_point, integer, []),
            helper.make_tensor_value_info(switch.factor, TensorProto.FLOAT, [None]),
            helper.make_tensor_value_info(switch.on, TensorProto.BOOL, []),
        ]
    )
    smoothed, rounded, back, used = (f"{layer.node}/probe_{n}" for n in range(4))
    node.input[0] = used
    parameters = [switch.scale, switch.zero_point]
    return [
        helper.make_node("Mul", [source, switch.factor], [smoothed]),
        helper.make_node("QuantizeLinear", [smoothed, *parameters], [rounded]),
        helper.make_node("DequantizeLinear", [rounded, *parameters], [back]),
        helper.make_node("Where", [switch.on, back, source], [used]),
    ]


def _open(
    model: onnx.ModelProto, num_threads: int, entries: Mapping[str, str] | None = None
) -> Any:  # noqa: ANN401 - untyped
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.log_severity_level = 3
    # Compilers work on the same cores meanwhile; waiting threads must not burn them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    for name, value in (entries or {}).items():
        options.add_session_config_entry(name, value)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _embedded(
    session: Any,  # noqa: ANN401
    tokens: TokenSequences,
    names: Sequence[str],
    feed: Feed,
) -> FloatArray:
    order = np.argsort(tokens.lengths, kind="stable")
    rows: dict[int, NDArray[np.float32]] = {}
    for batch in _batches(tokens.lengths, order):
        found = session.run([EMBEDDING], feed | _padded(tokens, batch, names))[0]
        rows.update(zip(batch, found, strict=True))
    return np.stack([rows[index] for index in range(len(tokens))])


def _batches(lengths: NDArray[np.int64], order: NDArray[np.int64]) -> list[list[int]]:
    batches: list[list[int]] = []
    for index in order:
        longest = max(int(lengths[index]), 1)
        if not batches or longest * (len(batches[-1]) + 1) > _MAX_BATCH_TOKENS:
            batches.append([])
        batches[-1].append(int(index))
    return batches


def _padded(tokens: TokenSequences, batch: Collection[int], names: Sequence[str]) -> Feed:
    rows = [tokens[index] for index in batch]
    width = max(max(len(row) for row in rows), 1)
    ids = np.full((len(rows), width), tokens.pad_token_id, np.int64)
    mask = np.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
        mask[number, : len(row)] = 1
    values: Mapping[str, NDArray[np.int64]] = {
        "input_ids": ids,
        "attention_mask": mask,
        "token_type_ids": np.zeros_like(ids),
    }
    return {name: values[name] for name in names}
