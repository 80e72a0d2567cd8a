"""The source model loaded by Transformers and quantized as a recipe says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from targets.contract import Precision, Recipe, SourceModel
from targets.errors import CompileError
from targets.pytorch.sdk import first_line, import_torch, import_torchao, import_transformers

INT4_GROUP = 32
"""Weights that share a scale: torchao's kernels take 32, 64 and 128; the least costs most."""


def load_model(
    source: SourceModel,
    recipe: Recipe,
    precisions: Mapping[str, Precision],
    *,
    on_gpu: bool = False,
) -> Any:  # noqa: ANN401 - a torch module
    """Load the transformer with its named linear layers quantized.

    Args:
        source: where its weights lie.
        recipe: what to make of it.
        precisions: module path → precision, for the layers that are quantized.
        on_gpu: it is made for this machine's GPU.

    Raises:
        CompileError: the libraries refuse the model or a layer of it, or another set of layers
            was quantized than the recipe names.
        NotInstalledError: a library is missing.
    """
    torch, transformers = import_torch(), import_transformers()
    if recipe.precision == "float8":
        _require_float8(torch, recipe)
    arguments: dict[str, Any] = {
        "dtype": getattr(torch, recipe.float_precision),
        "use_safetensors": True,
        "local_files_only": True,
        "trust_remote_code": source.trust_remote_code,
        "attn_implementation": "sdpa",
    }
    if recipe.quantizer not in ("none", "torch_dynamic"):
        arguments["quantization_config"] = _configuration(source, recipe, precisions, on_gpu)
    if on_gpu and packs_on_gpu(recipe):
        arguments["device_map"] = {"": "cuda"}
    try:
        model = _from_pretrained(transformers.AutoModel, source.weights, arguments).eval()
    except Exception as error:  # several libraries, none of whose errors share a base
        raise CompileError(
            f"recipe {recipe.name!r} cannot be made of this model",
            why=first_line(error),
            hint="another recipe may still do; `exporter targets torch` lists them",
        ) from error
    _check_layers(model, recipe, precisions)
    return model


def _require_float8(torch: Any, recipe: Recipe) -> None:  # noqa: ANN401
    """Refuse what torchao refuses too, in words that Transformers hides."""
    if torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 9):
        return
    raise CompileError(
        f"recipe {recipe.name!r} cannot be made on this machine",
        why="torchao quantizes to float8 beside a GPU of compute capability 8.9 or later only",
        hint="another recipe, or the machine with the GPU",
    )


def _from_pretrained(auto: Any, folder: Path, arguments: dict[str, Any]) -> Any:  # noqa: ANN401
    try:
        return auto.from_pretrained(folder, **arguments)
    except ValueError as error:
        if "scaled_dot_product_attention" not in str(error):
            raise
        # The architecture knows one kind of attention only, which is right as well.
        return auto.from_pretrained(folder, **{**arguments, "attn_implementation": "eager"})


def packs_on_gpu(recipe: Recipe) -> bool:
    """Say whether weights made for a GPU are packed by a kernel of it, and stay packed so."""
    return recipe.quantizer == "torchao_weight_only" and recipe.precision == "int4"


def _configuration(
    source: SourceModel,
    recipe: Recipe,
    precisions: Mapping[str, Precision],
    on_gpu: bool,
) -> Any:  # noqa: ANN401 - a quantization configuration of Transformers
    transformers = import_transformers()
    if recipe.quantizer.startswith("torchao"):
        make = _torchao_on_gpu if on_gpu else _torchao
        layers = {f"{path}.weight": make(recipe, one) for path, one in precisions.items()}
        return transformers.TorchAoConfig(import_torchao().FqnToConfig(layers))
    skipped = sorted(set(linear_paths(source)) - set(precisions))
    if recipe.quantizer == "bnb_int8":
        return transformers.BitsAndBytesConfig(
            load_in_8bit=True,
            llm_int8_threshold=recipe.outlier_threshold,
            llm_int8_skip_modules=skipped,
        )
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=recipe.float_precision,
        llm_int8_skip_modules=skipped,
    )


def _torchao(recipe: Recipe, precision: Precision) -> Any:  # noqa: ANN401
    torch, quantization = import_torch(), import_torchao()
    if recipe.quantizer == "torchao_dynamic":
        return quantization.Int8DynamicActivationInt8WeightConfig()
    if precision == "int8":
        return quantization.Int8WeightOnlyConfig()
    return quantization.IntxWeightOnlyConfig(
        weight_dtype=torch.int4, granularity=quantization.PerGroup(INT4_GROUP)
    )


def _torchao_on_gpu(recipe: Recipe, precision: Precision) -> Any:  # noqa: ANN401
    quantization = import_torchao()
    if precision == "float8":
        by_row = quantization.PerRow()
        return quantization.Float8DynamicActivationFloat8WeightConfig(granularity=by_row)
    if precision == "int4":
        return quantization.Int4WeightOnlyConfig(
            group_size=INT4_GROUP, int4_packing_format="tile_packed_to_4d"
        )
    return _torchao(recipe, precision)


def linear_paths(source: SourceModel) -> tuple[str, ...]:
    """Return the module paths of all linear layers of a model, without loading its weights."""
    torch, transformers = import_torch(), import_transformers()
    options = {"trust_remote_code": source.trust_remote_code, "local_files_only": True}
    config = transformers.AutoConfig.from_pretrained(source.weights, **options)
    with torch.device("meta"):
        model = transformers.AutoModel.from_config(
            config, trust_remote_code=source.trust_remote_code
        )
    return _linears(model)


def _linears(model: Any) -> tuple[str, ...]:  # noqa: ANN401
    torch = import_torch()
    named = model.named_modules()
    return tuple(name for name, module in named if isinstance(module, torch.nn.Linear))


def _check_layers(
    model: Any,  # noqa: ANN401
    recipe: Recipe,
    precisions: Mapping[str, Precision],
) -> None:
    """Hold what was quantized against what was asked for: libraries skip layers silently."""
    if recipe.quantizer == "torch_dynamic":  # quantized when it is loaded
        found = set(precisions) & set(_linears(model))
    else:
        found = {name for name, module in model.named_modules() if is_quantized(module)}
    if found != set(precisions):
        strange = sorted(found ^ set(precisions))
        raise CompileError(
            f"recipe {recipe.name!r}: other layers were quantized than it names",
            why=f"{len(strange)} differ, the first is {strange[0]}",
            hint="leave that layer in float with --layer-precision",
        )


def is_quantized(module: Any) -> bool:  # noqa: ANN401
    """Say whether a module is a linear layer that torchao or bitsandbytes quantized."""
    if type(module).__module__.startswith("bitsandbytes."):
        return type(module).__name__ in ("Linear8bitLt", "Linear4bit")
    weight = getattr(module, "weight", None)
    return weight is not None and type(weight).__module__.startswith("torchao.")
