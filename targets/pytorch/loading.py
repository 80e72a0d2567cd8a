"""From a folder to a model: loaded by Transformers, packed by torch, compiled where that is asked.

Imports torch and Transformers only: the session adapter loads this file by its path. Transformers
imports torchao and bitsandbytes.
"""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_COMPILERS = {
    "cpu": ("C++", "CXX", ("g++", "clang++", "c++")),
    "cuda": ("C", "CC", ("gcc", "clang", "cc")),
}
"""Where it runs → what torch.compile needs: Inductor writes C++ for a CPU; for a GPU it goes
through Triton, whose launcher is C. Language, the variable that names a compiler, usual names."""


def load(folder: Path, settings: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a torch module
    """Load a folder's model on the CPU.

    Args:
        folder: as Transformers reads it.
        settings: of `runner.json`.

    Raises:
        ImportError: a package of the model's is not installed.
        RuntimeError: it cannot be loaded.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()
    arguments = {
        "local_files_only": True,
        "trust_remote_code": settings["trust_remote_code"],
        "use_safetensors": True,
    }
    try:
        model = transformers.AutoModel.from_pretrained(folder, **arguments).eval()
    except ImportError:
        raise
    except Exception as error:  # several libraries, none of whose errors share a base
        raise RuntimeError(" ".join(str(error).split())) from error
    if settings["dynamic_layers"]:
        _quantize_dynamically(model, settings["dynamic_layers"])
    _keep_plain_where_packing_fails(model)
    return model


def _keep_plain_where_packing_fails(model: Any) -> None:  # noqa: ANN401
    """Keep four-bit layers as they are stored where bitsandbytes would pack them and fail.

    On CPUs with AVX512-BF16 it packs them at the first call for a kernel of its own, which wants
    whole blocks of inputs and 32 outputs at a time; others raise (bitsandbytes 0.50.2,
    `_convert_weight_packed_for_cpu`). Unpacked, they run as on every other CPU.
    """
    for layer in model.modules():
        if getattr(layer, "support_avx512bf16_for_cpu", False):
            num_outputs, num_inputs = layer.out_features, layer.in_features
            block = layer.weight.quant_state.blocksize
            layer.support_avx512bf16_for_cpu = num_outputs % 32 == 0 and num_inputs % block == 0


def _quantize_dynamically(model: Any, layers: list[str]) -> None:  # noqa: ANN401
    """Let torch itself pack the named linear layers; it cannot store them as safetensors."""
    import torch

    quantization: Any = getattr(torch.ao, "quantization", None)
    if not hasattr(quantization, "quantize_dynamic"):
        raise RuntimeError("this torch has no dynamic quantization of its own any more")
    how = quantization.default_dynamic_qconfig
    quantization.quantize_dynamic(model, dict.fromkeys(layers, how), inplace=True)


# --------------------------------------------------------------------------- torch.compile


class LacksToolError(RuntimeError):
    """The device does not have a tool; the runner reads from `lacks` which."""

    def __init__(self, lacks: str, message: str) -> None:
        super().__init__(message)
        self.lacks = lacks


def require_compiler(place: str) -> None:
    """Refuse torch.compile where it would find no compiler.

    Raises:
        LacksToolError: there is none.
        ImportError: Triton is not installed, which writes a GPU's kernels.
    """
    if not has_compiler(place):
        language, _, _ = _COMPILERS[place]
        raise LacksToolError(
            f"{language} compiler",
            f"torch.compile needs a {language} compiler, and there is none of "
            f"{', '.join(compilers(place))}: apt-get install g++",
        )
    if place == "cuda":
        importlib.import_module("triton")  # the runner says by name what cannot be imported


def has_compiler(place: str = "cpu") -> bool:
    """Say whether torch.compile finds a compiler."""
    return any(shutil.which(one) for one in compilers(place))


def compilers(place: str = "cpu") -> tuple[str, ...]:
    """Return the names that torch.compile looks for."""
    _, variable, names = _COMPILERS[place]
    named = os.environ.get(variable)
    return (named,) if named else names


def compile_blocks(model: Any) -> None:  # noqa: ANN401
    """Compile the blocks that a transformer repeats, each on its first call.

    All blocks of a kind share one compiled function, so that its cost does not grow with their
    number; a model without such blocks is compiled whole.
    """
    import torch

    lists = (one for one in model.modules() if isinstance(one, torch.nn.ModuleList))
    blocks = max(lists, key=len, default=())
    for block in blocks if len(blocks) > 1 else (model,):
        block.compile(dynamic=True)
