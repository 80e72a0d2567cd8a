"""The FP32 graph in ONNX Runtime, cut so that it gives what its int8 products would read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from exporter.optimize.calibration_batches import Batch
from targets.contract import FloatArray, IntArray, OnnxArtifact
from targets.errors import CalibrationError

if TYPE_CHECKING:
    import onnx

Layout = Literal[
    "texts, tokens",
    "tokens, texts",
    "texts × tokens",
    "texts, heads, tokens, size",
    "texts, heads, size, tokens",
    "none",
]
"""Where the tokens of a batch lie in a tensor; "none": it does not depend on the padding."""

_PROBE_TEXTS, _PROBE_TOKENS = 2, 3
_ERRORS_ONLY = 3
# Since ONNX Runtime 1.20: where the external weights of a graph given as bytes lie.
_EXTERNAL_FOLDER = "session.model_external_initializers_file_folder_path"


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    """A tensor that linear layers or the products of an attention read.

    Args:
        name: the ONNX tensor.
        layers: paths of the layers or attentions that read it.
        num_channels: size of the last axis; in an attention heads × size.
        layout: where its tokens lie.
    """

    name: str
    layers: tuple[str, ...]
    num_channels: int
    layout: Layout

    @property
    def in_attention(self) -> bool:
        """Whether an attention reads it: nobody needs its second moments."""
        return "heads" in self.layout

    def rows(self, value: FloatArray, batch: Batch) -> FloatArray:
        """Return one row per token of the batch, without padding.

        Args:
            value: the tensor, float32, channels on the last axis.
            batch: what it was computed from.

        Returns:
            Shape [rows, num_channels], float32.
        """
        if self.in_attention:
            order = (0, 2, 1, 3) if self.layout.endswith("size") else (0, 3, 1, 2)
            value = value.transpose(order)
        flat = value.reshape(-1, self.num_channels)
        if self.layout == "none" or batch.is_token.all():
            return flat
        is_token = batch.is_token.T if self.layout == "tokens, texts" else batch.is_token
        repeats = len(flat) // is_token.size
        return flat[np.flatnonzero(np.repeat(is_token.reshape(-1), repeats))]


class ActivationSession:
    """Runs batches through the graph and returns what its linear layers read."""

    def __init__(
        self,
        session: Any,  # noqa: ANN401
        layers: Mapping[str, tuple[str, ...]],
        attention: Mapping[str, tuple[str, Layout]] | None = None,
    ) -> None:
        self._session = session
        self._inputs = [value.name for value in session.get_inputs()]
        self.activations = (*self._probed(layers), *self._probed_heads(attention or {}))

    @property
    def num_values_per_token(self) -> int:
        """Values of all activations together that one token gives."""
        return sum(one.num_channels for one in self.activations)

    def run(self, batch: Batch) -> list[FloatArray]:
        """Return the activations of a batch, in the order of `activations`, with padding.

        Raises:
            CalibrationError: if ONNX Runtime fails.
        """
        return self._fetch([one.name for one in self.activations], batch)

    def _fetch(self, names: Sequence[str], batch: Batch) -> list[FloatArray]:
        from onnxruntime.capi.onnxruntime_pybind11_state import (
            Fail,
            InvalidArgument,
            RuntimeException,
        )

        try:
            values: list[FloatArray] = self._session.run(list(names), self._feed(batch))
        except (Fail, InvalidArgument, RuntimeException) as error:
            raise CalibrationError(
                f"ONNX Runtime failed on a batch of {batch.num_texts} × {batch.ids.shape[1]} "
                f"tokens, ids {batch.ids.min()} to {batch.ids.max()}",
                why=str(error).splitlines()[0],
                hint="check that the texts were tokenized with this model's tokenizer",
            ) from error
        return values

    def _feed(self, batch: Batch) -> dict[str, IntArray]:
        known = {
            "input_ids": batch.ids,
            "attention_mask": batch.is_token.astype(np.int64),
            "token_type_ids": np.zeros_like(batch.ids),
        }
        return {name: known[name] for name in self._inputs}

    def _probed(self, layers: Mapping[str, tuple[str, ...]]) -> list[Activation]:
        """Learn channels and token axes from a batch whose shape cannot be mistaken."""
        shape = (_PROBE_TEXTS, _PROBE_TOKENS)
        # The pad token is one that every vocabulary has; it counts as a token here.
        batch = Batch(ids=np.zeros(shape, np.int64), is_token=np.ones(shape, np.bool_))
        values = self._fetch(list(layers), batch)
        return [
            Activation(
                name=name,
                layers=layers[name],
                num_channels=value.shape[-1],
                layout=_layout_of(value, name, layers[name]),
            )
            for name, value in zip(layers, values, strict=True)
        ]

    def _probed_heads(self, attention: Mapping[str, tuple[str, Layout]]) -> list[Activation]:
        """Learn heads and sizes; where the tokens lie, the product that reads them says."""
        shape = (_PROBE_TEXTS, _PROBE_TOKENS)
        batch = Batch(ids=np.zeros(shape, np.int64), is_token=np.ones(shape, np.bool_))
        values = self._fetch(list(attention), batch) if attention else []
        found = []
        for (name, (path, layout)), value in zip(attention.items(), values, strict=True):
            at = layout.split(", ").index("tokens")
            if value.ndim != 4 or (value.shape[0], value.shape[at]) != shape:
                raise CalibrationError(
                    f"the attention {path} cannot be calibrated",
                    why=f"{name} has shape {list(value.shape)}, not [{layout}]",
                    hint="leave attention in float",
                )
            channels = value.size // (_PROBE_TEXTS * _PROBE_TOKENS)
            found.append(
                Activation(name=name, layers=(path,), num_channels=channels, layout=layout)
            )
        return found


def _layout_of(value: NDArray[Any], name: str, layers: tuple[str, ...]) -> Layout:
    texts, tokens = _PROBE_TEXTS, _PROBE_TOKENS
    leading = value.shape[:-1]
    if leading[:2] == (texts, tokens):
        return "texts, tokens"
    if leading[:2] == (tokens, texts):
        return "tokens, texts"
    if leading[:1] == (texts * tokens,):
        return "texts × tokens"
    if texts not in leading and texts * tokens not in leading:
        return "none"
    raise CalibrationError(
        f"the input of {layers[0]} cannot be calibrated",
        why=f"the tensor {name} has shape {list(value.shape)} for {texts} texts of {tokens} "
        "tokens: it is not known which rows are padding",
        hint="keep this layer out of the layers to quantize",
    )


def open_activations(
    graph: OnnxArtifact, num_threads: int | None, *, attention: bool = False
) -> ActivationSession:
    """Load the graph with the inputs of its linear layers as the only outputs.

    The file is not touched. What is behind the last of these tensors is not computed.

    Args:
        graph: the FP32 graph; its weights may lie in a second file.
        num_threads: CPU threads; None: all cores.
        attention: give query, key and value of every attention as well.

    Raises:
        CalibrationError: if there is no linear layer, or ONNX Runtime does not load the graph.
        CompileError: an attention is asked for that is no pair of products.
    """
    import onnx

    model = onnx.load(str(graph.path), load_external_data=False)
    layers = _readers(model)
    if not layers:
        raise CalibrationError(
            f"the graph {graph.path} has no linear layer to calibrate",
            why="no MatMul or Gemm with a constant weight lies in front of last_hidden_state",
            hint="export the encoder again",
        )
    heads = _attention_readers(model) if attention else {}
    _keep_outputs(model, [*layers, *heads])
    return ActivationSession(_open(model, graph, num_threads), layers, heads)


def _readers(model: onnx.ModelProto) -> dict[str, tuple[str, ...]]:
    """Return the tensors that linear layers read, each with the layers' paths."""
    from targets.quantization.layers import read_layers

    readers: dict[str, tuple[str, ...]] = {}
    for layer in read_layers(model).linears:
        readers[layer.activation] = (*readers.get(layer.activation, ()), layer.path)
    return readers


def _attention_readers(model: onnx.ModelProto) -> dict[str, tuple[str, Layout]]:
    """Return query, key and value of every attention: its path, and where the tokens lie."""
    from targets.quantization.attention import read_attention
    from targets.quantization.layers import read_layers

    readers: dict[str, tuple[str, Layout]] = {}
    for block in read_attention(model, read_layers(model)):
        readers[block.query] = (block.path, "texts, heads, tokens, size")
        readers[block.key] = (block.path, "texts, heads, size, tokens")
        readers[block.value] = (block.path, "texts, heads, tokens, size")
    return readers


def _keep_outputs(model: onnx.ModelProto, names: Sequence[str]) -> None:
    import onnx

    del model.graph.output[:]
    # Type and shape are inferred by the runtime.
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)


def _open(model: onnx.ModelProto, graph: OnnxArtifact, num_threads: int | None) -> Any:  # noqa: ANN401
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = num_threads or 0
    # Both remember every shape they meet: memory would grow with the lengths of the texts.
    options.enable_mem_pattern = False
    options.enable_cpu_mem_arena = False
    # Compilers work on the same cores meanwhile; waiting threads must not burn them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry(_EXTERNAL_FOLDER, str(graph.path.parent))
    try:
        return ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime's exceptions share no base but Exception (1.32)
        raise CalibrationError(
            f"ONNX Runtime cannot load {graph.path}",
            why=str(error).splitlines()[0],
            hint="export the encoder again",
        ) from error
