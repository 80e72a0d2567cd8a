"""PyTorch's side of the runner: one file that travels to the device.

Imports numpy, torch, Transformers and safetensors only; the runner loads it by its path and calls
`open_session`. The model is what Transformers makes of the folder (torchao and bitsandbytes are
imported by it); what comes behind it (pooling, normalization) is read from `runner.json` beside it.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import shutil
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Inputs = dict[str, NDArray[np.int64]]
ExecutedRow = tuple[str, str, int, float | None]

COMPILE, GRAPHS, PLACE = "compile", "cuda_graphs", "place"
_DEFAULTS = {COMPILE: "off", GRAPHS: "off", PLACE: "cpu"}
_VALUES = {COMPILE: ("off", "dynamic"), GRAPHS: ("off", "on"), PLACE: ("cpu", "cuda")}
_COMPILERS = {
    "cpu": ("C++", "CXX", ("g++", "clang++", "c++")),
    "cuda": ("C", "CC", ("gcc", "clang", "cc")),
}
"""Where it runs → what torch.compile needs: Inductor writes C++ for a CPU; for a GPU it goes
through Triton, whose launcher is C. Language, the variable that names a compiler, usual names."""
_GRAPH_TOKENS, _MAX_GRAPHS = 8192, 64
"""Larger batches keep a GPU busy by themselves, and every graph keeps its memory."""
_WARM_UPS = 3
"""Before a capture, on a stream of its own, as PyTorch's notes on CUDA graphs ask for."""

_PRODUCTS = {
    "aten::addmm": "",
    "aten::mm": "",
    "aten::bmm": "",
    "aten::baddbmm": "",
    "aten::mkldnn_linear": "",
    "aten::_int_mm": "int8",
    "aten::_scaled_mm": "float8",
    "aten::_scaled_mm_v2": "float8",
    "aten::_weight_int4pack_mm": "int4",
    "aten::_weight_int8pack_mm": "int8",
    "mkldnn::_linear_pointwise": "",
    "mkl::_mkl_linear": "",
    "onednn::qlinear_pointwise": "int8",
    "quantized::linear_dynamic": "int8",
}
"""Operators that multiply matrices → what they compute in; "": in what they read."""
_PERHAPS = {
    "aten::linear": "",
    "aten::matmul": "",
    "bitsandbytes::int8_linear_matmul": "int8",
    "bitsandbytes::int8_linear_matmul.out": "int8",
    "bitsandbytes::gemm_4bit": "int4",
    "bitsandbytes::gemv_4bit": "int4",
}
"""Operators that multiply by themselves, or through others, which then count instead.

On a CPU without AVX-512 bitsandbytes 0.50 widens its integers and multiplies them by `aten::mm`.
"""
_FUSED = "triton_"
"""How kernels begin that torch.compile makes for a GPU."""
_NOT_A_PRODUCT = (("matmul", "mat-mul"), ("gemm", "ge-mm"), ("gemv", "ge-mv"))
"""How names are changed that would otherwise pass for products."""
_DTYPES = {
    "float": "float32",
    "double": "float64",
    "c10::BFloat16": "bfloat16",
    "c10::Half": "float16",
    "c10::Float8_e4m3fn": "float8",
    "signed char": "int8",
    "unsigned char": "uint8",
    "int": "int32",
    "long int": "int64",
    "long": "int64",
    "bool": "bool",
}
"""How the profiler names types."""


class Plan(Protocol):
    """What this file reads of the runner's plan."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the model's arguments."""

    @property
    def options(self) -> Mapping[str, str]:
        """Names and values of `_DEFAULTS`."""

    @property
    def num_threads(self) -> int:
        """CPU threads."""


class LacksToolError(RuntimeError):
    """The device does not have a tool; the runner reads from `lacks` which."""

    def __init__(self, lacks: str, message: str) -> None:
        super().__init__(message)
        self.lacks = lacks


def open_session(model: Path, plan: Plan) -> TorchSession:
    """Load a folder on the CPU, or on the GPU where the plan says so.

    Args:
        model: its `model.safetensors`; the other files lie beside it.
        plan: argument names, options and threads.

    Raises:
        ValueError: an option or its value is unknown, or CUDA graphs are asked for on a CPU.
        ImportError: torch, Transformers, the model's quantizer or Triton is not installed.
        LacksToolError: there is no compiler for torch.compile.
        RuntimeError: the model cannot be loaded, or there is no GPU.
    """
    options = _checked_options(plan.options)
    if options[COMPILE] != "off":
        _require_compiler(options[PLACE])
    return TorchSession(model.parent, plan, options)


def _checked_options(given: Mapping[str, str]) -> dict[str, str]:
    if unknown := sorted(given.keys() - _DEFAULTS.keys()):
        raise ValueError(f"unknown options {unknown}; known are {sorted(_DEFAULTS)}")
    options = {**_DEFAULTS, **given}
    for name, values in _VALUES.items():
        if options[name] not in values:
            raise ValueError(f"{name}={options[name]}: it is one of {', '.join(values)}")
    if options[GRAPHS] == "on" and options[PLACE] != "cuda":
        raise ValueError(f"{GRAPHS}=on: graphs of kernels are captured on a GPU only")
    return options


def _require_compiler(place: str) -> None:
    if not _has_compiler(place):
        language, _, _ = _COMPILERS[place]
        raise LacksToolError(
            f"{language} compiler",
            f"torch.compile needs a {language} compiler, and there is none of "
            f"{', '.join(_compilers(place))}: apt-get install g++",
        )
    if place == "cuda":
        importlib.import_module("triton")  # the runner says by name what cannot be imported


def _has_compiler(place: str = "cpu") -> bool:
    return any(shutil.which(one) for one in _compilers(place))


def _compilers(place: str = "cpu") -> tuple[str, ...]:
    _, variable, names = _COMPILERS[place]
    named = os.environ.get(variable)
    return (named,) if named else names


class TorchSession:
    """A loaded model that embeds one batch at a time."""

    def __init__(self, folder: Path, plan: Plan, options: Mapping[str, str]) -> None:
        import torch

        torch.set_num_threads(plan.num_threads)
        self._torch = torch
        self._inputs = plan.inputs
        self._options = options
        place = options[PLACE]
        if place == "cuda":
            _require_gpu(torch)
            torch.set_float32_matmul_precision("highest")  # no TF32 behind float32's back
        settings = json.loads((folder / "runner.json").read_text("utf-8"))
        with _quiet():
            self._model = _load(folder, settings).to(place)
            self._head = Head(folder, settings["head"], place)
            if options[COMPILE] != "off":
                _compile_blocks(self._model)
        self._min_tokens = int(settings.get("min_tokens", 0))
        self._embed = _Graphs(self._forward) if options[GRAPHS] == "on" else self._forward

    def run(self, inputs: Inputs) -> NDArray[np.float32]:
        """Embed one padded batch.

        Args:
            inputs: int64 arrays, shape [batch, length]; read in place.

        Returns:
            The embeddings, shape [batch, dim], float32.
        """
        return self._run(inputs, self._embed)

    def _run(self, inputs: Inputs, embed: Callable[..., Any]) -> NDArray[np.float32]:
        """Embed one batch; copying the rows waits for whatever computes them."""
        torch = self._torch
        with torch.inference_mode(), _quiet():
            widened = _widened(inputs, self._min_tokens)
            tensors = {name: torch.from_numpy(widened[name]) for name in self._inputs}
            embeddings: NDArray[np.float32] = embed(tensors).cpu().numpy()
            return embeddings

    def _forward(self, tensors: Mapping[str, Any]) -> Any:  # noqa: ANN401 - tensors
        """Compute embeddings [batch, dim] where the model is."""
        moved = {name: one.to(self._options[PLACE]) for name, one in tensors.items()}
        states = self._model(**moved)[0].float()
        return self._head(states, moved["attention_mask"])

    def inspect(self, inputs: Inputs) -> list[ExecutedRow]:
        """Say what one batch executed, as torch's profiler saw it.

        The second of two runs is read: the first one also pays for memory. What torch.compile
        fused is one row without a type. On a GPU the time is that of its kernels, where the
        driver lets them be watched. A CUDA graph is one launch that tells nothing, so that what
        it was captured from is run instead.
        """
        from torch.profiler import ProfilerActivity, profile

        activities = [ProfilerActivity.CPU]
        if self._options[PLACE] == "cuda":
            activities.append(ProfilerActivity.CUDA)
        self._run(inputs, self._forward)
        with profile(activities=activities, record_shapes=True) as seen:
            self._run(inputs, self._forward)
        return _aggregate(seen.events(), _types_read(seen))

    def versions(self) -> dict[str, str]:
        """Return the versions of what was imported."""
        import transformers

        found = {"torch": self._torch.__version__, "transformers": transformers.__version__}
        return {name: str(version) for name, version in found.items()}

    def options(self) -> dict[str, str]:
        """Return the options that are in effect."""
        return {
            **self._options,
            "num_threads": str(self._torch.get_num_threads()),
            "cpu_capability": str(self._torch.backends.cpu.get_cpu_capability()),
            "attention": str(getattr(self._model.config, "_attn_implementation", "")),
            **(_gpu_options(self._torch) if self._options[PLACE] == "cuda" else {}),
        }

    def close(self) -> None:
        """Release the model."""
        del self._model, self._embed


class _Graphs:
    """One CUDA graph for each shape of a small batch: one launch instead of hundreds.

    Args:
        forward: turns tensors of the host into embeddings on the GPU.
    """

    def __init__(self, forward: Callable[[Mapping[str, Any]], Any]) -> None:
        self._forward = forward
        self._captured: dict[tuple[int, ...], tuple[Any, dict[str, Any], Any]] = {}

    def __call__(self, tensors: Mapping[str, Any]) -> Any:  # noqa: ANN401 - tensors
        """Compute embeddings [batch, dim]; the next call may write over them."""
        shape = tuple(tensors["attention_mask"].shape)
        if shape not in self._captured:
            if shape[0] * shape[1] > _GRAPH_TOKENS or len(self._captured) >= _MAX_GRAPHS:
                return self._forward(tensors)
            self._captured[shape] = self._capture(tensors)
        graph, held, rows = self._captured[shape]
        for name, one in held.items():
            one.copy_(tensors[name])
        graph.replay()
        return rows

    def _capture(self, tensors: Mapping[str, Any]) -> tuple[Any, dict[str, Any], Any]:
        import torch

        held = {name: one.to("cuda") for name, one in tensors.items()}
        held["attention_mask"][:, -1] = 0  # a full mask is left out, which a capture never does
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                self._forward(held)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            rows = self._forward(held)
        return graph, held, rows


def _require_gpu(torch: Any) -> None:  # noqa: ANN401 - untyped
    if not torch.cuda.is_available():
        raise RuntimeError("this torch sees no NVIDIA GPU")


def _gpu_options(torch: Any) -> dict[str, str]:  # noqa: ANN401 - untyped
    return {
        "gpu": str(torch.cuda.get_device_name()),
        "cuda": str(torch.version.cuda),
        "tf32": "off" if torch.get_float32_matmul_precision() == "highest" else "on",
    }


def _widened(inputs: Inputs, min_tokens: int) -> Inputs:
    """Add masked columns until a batch has as many tokens as the model's products ask for."""
    batch, length = inputs["attention_mask"].shape
    missing = -(-min_tokens // batch) - length
    if missing <= 0:
        return inputs
    return {name: np.pad(one, ((0, 0), (0, missing))) for name, one in inputs.items()}


def _load(folder: Path, settings: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a torch module
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


def _compile_blocks(model: Any) -> None:  # noqa: ANN401
    """Compile the blocks that a transformer repeats, each on its first call.

    All blocks of a kind share one compiled function, so that its cost does not grow with their
    number; a model without such blocks is compiled whole.
    """
    import torch

    lists = (one for one in model.modules() if isinstance(one, torch.nn.ModuleList))
    blocks = max(lists, key=len, default=())
    for block in blocks if len(blocks) > 1 else (model,):
        block.compile(dynamic=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep deprecations and the list of CUDA extensions that are not here off stderr."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


# ---------------------------------------------------------------- from states to embedding


class Head:
    """Pooling, dense layers, normalization: always in float32.

    Args:
        folder: has `head.safetensors` where a step has weights.
        steps: as the target wrote them.
        place: where the states are.
    """

    def __init__(self, folder: Path, steps: list[dict[str, Any]], place: str = "cpu") -> None:
        self._steps = steps
        path = folder / "head.safetensors"
        self._tensors: dict[str, Any] = {}
        if path.is_file():
            from safetensors.torch import load_file

            self._tensors = load_file(path, device=place)

    def __call__(self, states: Any, mask: Any) -> Any:  # noqa: ANN401 - tensors
        """Turn states [batch, length, hidden] into embeddings [batch, dim]."""
        found = states
        for step in self._steps:
            found = self._apply(step, found, mask)
        return found

    def _apply(self, step: dict[str, Any], rows: Any, mask: Any) -> Any:  # noqa: ANN401
        import torch
        from torch.nn import functional

        kind = step["kind"]
        if kind == "pooling":
            return torch.cat([_pool(mode, rows, mask) for mode in step["modes"]], dim=1)
        if kind == "normalize":
            return functional.normalize(rows, dim=1)
        if kind == "cut":
            return rows[:, : step["dim"]].contiguous()
        weight = self._tensors[step["weight"]]
        bias = None if step["bias"] is None else self._tensors[step["bias"]]
        if kind == "dense":
            activation = getattr(torch.nn, step["activation"])()
            return activation(functional.linear(rows, weight, bias))
        if kind == "layernorm":
            return functional.layer_norm(rows, weight.shape, weight, bias)
        raise ValueError(f"runner.json: step {kind!r} is unknown")


def _pool(mode: str, states: Any, mask: Any) -> Any:  # noqa: ANN401 - tensors
    """Pool states over the tokens of a text; the formulas of Sentence Transformers' Pooling."""
    import torch

    kept = mask.unsqueeze(-1).to(states.dtype)
    if mode == "cls":
        return states[:, 0]
    if mode == "max":
        return states.masked_fill(kept == 0, float("-inf")).max(dim=1).values
    if mode == "lasttoken":
        last = (mask.sum(dim=1) - 1).clamp(min=0)
        return states[torch.arange(len(states), device=states.device), last]
    if mode == "weightedmean":
        kept = kept * _positions(states)
    total, count = (states * kept).sum(dim=1), kept.sum(dim=1).clamp(min=1e-9)
    if mode == "mean_sqrt_len_tokens":
        return total / count.sqrt()
    if mode in ("mean", "weightedmean"):
        return total / count
    raise ValueError(f"runner.json: pooling mode {mode!r} is unknown")


def _positions(states: Any) -> Any:  # noqa: ANN401 - tensors
    """Count tokens from 1, shape [1, length, 1]."""
    import torch

    counted = torch.arange(1, states.shape[1] + 1, dtype=states.dtype, device=states.device)
    return counted.view(1, -1, 1)


# --------------------------------------------------------------------------- what executed


def _types_read(profile: Any) -> dict[int, list[str]]:  # noqa: ANN401 - torch is untyped
    """Return what each event read; the events of torch before 2.13 do not keep it themselves."""
    raw = profile.profiler.kineto_results.events()
    return {one.correlation_id(): types for one in raw if any(types := one.dtypes())}


def _aggregate(events: Any, types_read: Mapping[int, list[str]]) -> list[ExecutedRow]:  # noqa: ANN401
    """Count operators and share out time by name and type, the longest first."""
    counts: defaultdict[tuple[str, str], int] = defaultdict(int)
    spent_us: defaultdict[tuple[str, str], float] = defaultdict(float)
    seen = [one for one in events if one.self_cpu_time_total > 0 and _is_operator(one.name)]
    on_gpu = any(one.self_device_time_total > 0 for one in seen)
    for event in seen:
        row = (_op_type(event), _executed_dtype(event, types_read.get(event.id, [])))
        counts[row] += 1
        spent_us[row] += event.self_device_time_total if on_gpu else event.self_cpu_time_total
    total_us = sum(spent_us.values())
    rows = sorted(counts, key=lambda row: (-spent_us[row], row))
    return [(*row, counts[row], spent_us[row] / total_us if total_us else None) for row in rows]


def _is_operator(name: str) -> bool:
    """Tell operators, and kernels that torch.compile made for a GPU, from other events."""
    return "::" in name or name.startswith(_FUSED)


def _op_type(event: Any) -> str:  # noqa: ANN401
    """Name an operator; what multiplies matrices is called MatMul, whoever it belongs to."""
    if event.name.startswith(_FUSED):
        return "Fused"
    name = str(event.name).partition("::")[2]
    if _multiplies(event):
        return f"MatMul ({name})"
    for product, other in _NOT_A_PRODUCT:
        name = name.replace(product, other)
    return name


def _multiplies(event: Any) -> bool:  # noqa: ANN401
    if event.name in _PRODUCTS:
        return True
    return event.name in _PERHAPS and not _has_product(event)


def _has_product(event: Any) -> bool:  # noqa: ANN401
    return any(
        one.name in _PRODUCTS or one.name in _PERHAPS or _has_product(one)
        for one in event.cpu_children
    )


def _executed_dtype(event: Any, types_read: list[str]) -> str:  # noqa: ANN401
    """Name the precision that an operator computes in: its first tensor's, unless it is known."""
    known = (_PRODUCTS | _PERHAPS).get(event.name, "") if _multiplies(event) else ""
    if known:
        return known
    names = [_DTYPES[name] for name in types_read if name in _DTYPES]
    return names[0] if names else "unknown"
