"""One recipe of the source model as a folder that Transformers and Sentence Transformers load."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from targets.contract import CompileRequest, Precision, Recipe, SourceModel
from targets.errors import CompileError
from targets.pytorch.files import (
    CONFIG_FILE,
    HEAD_FILE,
    MIN_TOKENS,
    PLACE,
    WEIGHTS_FILE,
    copy_sidecar,
    declare_dtype,
    sort_metadata,
    storage_error,
    write_runner_file,
)
from targets.pytorch.head import read_head
from targets.pytorch.model import load_model
from targets.pytorch.recipes import is_gpu
from targets.pytorch.sdk import import_torch, quiet
from targets.quantization.layers import EncoderLayers, match, read_layers
from targets.quantization.overrides import quantized_layers

_ONE_FILE = "10000GB"
_INT_MM_ROWS = 24
"""torch._int_mm takes more than 16 rows on a GPU, in eights; torchao widens what is smaller."""


def build_folder(request: CompileRequest, source: SourceModel) -> None:
    """Write the artifact of one recipe into the request's folder.

    Raises:
        CompileError: an override matches no layer, or the libraries refuse the model.
        NotInstalledError: a library is missing.
        StorageError: a file cannot be written.
    """
    recipe, folder, on_gpu = request.recipe, request.output_dir, is_gpu(request.hardware)
    layers = read_layers(onnx.load(request.graph.path, load_external_data=False))
    precisions = layer_precisions(recipe, layers) if recipe.quantizer != "none" else {}
    head = read_head(source.sidecar, request.graph.embedding_dim)
    with quiet():
        model = load_model(source, recipe, precisions, on_gpu=on_gpu)
        _store_embeddings(model, recipe.embeddings)
        _save(model, folder, recipe.float_precision)
    if head.tensors:
        from safetensors.torch import save_file

        save_file(head.tensors, folder / HEAD_FILE)
    dynamic = sorted(precisions) if recipe.quantizer == "torch_dynamic" else []
    values = {
        "head": list(head.steps),
        "dynamic_layers": dynamic,
        "trust_remote_code": source.trust_remote_code,
        PLACE: "cuda" if on_gpu else "cpu",
        MIN_TOKENS: _INT_MM_ROWS if on_gpu and _is_int8_dynamic(recipe) else 0,
    }
    write_runner_file(folder, values)
    copy_sidecar(source.sidecar, folder)


def layer_precisions(recipe: Recipe, layers: EncoderLayers) -> Mapping[str, Precision]:
    """Return module path → precision of every layer that is quantized; later patterns win.

    Raises:
        CompileError: a pattern matches no linear layer, or no layer is left.
    """
    quantized_layers(recipe, layers)  # refuses what matches nothing
    found: dict[str, Precision] = {layer.path: recipe.precision for layer in layers.linears}
    for override in recipe.overrides:
        for layer in match(override.pattern, layers):
            found[layer.path] = override.precision
    return {path: one for path, one in found.items() if one in ("float8", "int8", "int4")}


def _is_int8_dynamic(recipe: Recipe) -> bool:
    return recipe.quantizer == "torchao_dynamic" and recipe.precision == "int8"


def _store_embeddings(model: Any, precision: Precision) -> None:  # noqa: ANN401
    """Round embedding tables to the precision that they are stored in."""
    torch = import_torch()
    dtype = getattr(torch, precision)
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding) and module.weight.dtype != dtype:
            module.weight.data = module.weight.data.to(dtype)


def _save(model: Any, folder: Path, precision: Precision) -> None:  # noqa: ANN401
    try:
        model.save_pretrained(folder, max_shard_size=_ONE_FILE)
    except OSError as error:
        raise storage_error(folder, error) from error
    except (ValueError, RuntimeError, NotImplementedError) as error:
        raise CompileError(
            "Transformers cannot save the quantized model", why=" ".join(str(error).split())
        ) from error
    declare_dtype(folder / CONFIG_FILE, precision)
    sort_metadata(folder / WEIGHTS_FILE)
