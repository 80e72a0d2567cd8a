"""PyTorch's side of the runner: a file that travels to the device with those that it loads.

Imports numpy, torch, Transformers and safetensors only; the runner loads it by its path and calls
`open_session`. It loads `loading.py`, `pooling.py`, `executed.py` and `gpu.py` beside it, which
import nothing of ours either; `targets.pytorch.target` lists them. The model is what Transformers
makes of the folder; what comes behind it (pooling, normalization) is read from `runner.json`
beside it.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import sys
import warnings
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
        _sibling("loading").require_compiler(options[PLACE])
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


def _sibling(name: str) -> Any:  # noqa: ANN401 - this file belongs to no package when it is loaded
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"{__name__}_{name}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"no {path}", name=name)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


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
            _sibling("gpu").require_gpu(torch)
            torch.set_float32_matmul_precision("highest")  # no TF32 behind float32's back
        settings = json.loads((folder / "runner.json").read_text("utf-8"))
        loading = _sibling("loading")
        with _quiet():
            self._model = loading.load(folder, settings).to(place)
            self._head = _sibling("pooling").Head(folder, settings["head"], place)
            if options[COMPILE] != "off":
                loading.compile_blocks(self._model)
        self._min_tokens = int(settings.get("min_tokens", 0))
        self._embed: Callable[..., Any] = self._forward
        if options[GRAPHS] == "on":
            self._embed = _sibling("gpu").Graphs(self._forward)

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
        rows: list[ExecutedRow] = _sibling("executed").rows_of(seen)
        return rows

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
            **(_sibling("gpu").gpu_options(self._torch) if self._options[PLACE] == "cuda" else {}),
        }

    def close(self) -> None:
        """Release the model."""
        del self._model, self._embed


def _widened(inputs: Inputs, min_tokens: int) -> Inputs:
    """Add masked columns until a batch has as many tokens as the model's products ask for."""
    batch, length = inputs["attention_mask"].shape
    missing = -(-min_tokens // batch) - length
    if missing <= 0:
        return inputs
    return {name: np.pad(one, ((0, 0), (0, missing))) for name, one in inputs.items()}


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
