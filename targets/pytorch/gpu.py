"""What a session does on a GPU only: graphs of kernels for small batches, and what it says of it.

Imports torch only: the session adapter loads this file by its path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

_GRAPH_TOKENS, _MAX_GRAPHS = 8192, 64
"""Larger batches keep a GPU busy by themselves, and every graph keeps its memory."""
_WARM_UPS = 3
"""Before a capture, on a stream of its own, as PyTorch's notes on CUDA graphs ask for."""


class Graphs:
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


def require_gpu(torch: Any) -> None:  # noqa: ANN401 - untyped
    """Raise a RuntimeError where torch sees none."""
    if not torch.cuda.is_available():
        raise RuntimeError("this torch sees no NVIDIA GPU")


def gpu_options(torch: Any) -> dict[str, str]:  # noqa: ANN401 - untyped
    """Name the GPU, its CUDA, and whether TF32 stands in for float32."""
    return {
        "gpu": str(torch.cuda.get_device_name()),
        "cuda": str(torch.version.cuda),
        "tf32": "off" if torch.get_float32_matmul_precision() == "highest" else "on",
    }
