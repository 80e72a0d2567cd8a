"""Statistics the slow and certain way: text by text, all values kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from targets.quantization.statistics import TensorStatistics


def onnx_values(
    path: Path, tensors: Sequence[str], texts: Iterable[np.ndarray]
) -> dict[str, np.ndarray]:
    """Run each text alone, without padding, in ONNX Runtime without optimizations.

    Returns:
        Tensor → values of all tokens, shape [tokens, channels], float32.
    """
    import onnxruntime as ort

    model = onnx.load(path)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options)
    rows: dict[str, list[np.ndarray]] = {name: [] for name in tensors}
    for text in texts:
        ids = np.asarray(text, np.int64)[None]
        values = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        values["token_type_ids"] = np.zeros_like(ids)
        feed = {value.name: values[value.name] for value in session.get_inputs()}
        for name, value in zip(tensors, session.run(list(tensors), feed), strict=True):
            rows[name].append(value.reshape(-1, value.shape[-1]))
    return {name: np.concatenate(parts) for name, parts in rows.items()}


def torch_values(
    folder: Path, readers: Mapping[str, str], texts: Iterable[np.ndarray]
) -> dict[str, np.ndarray]:
    """Run each text alone through the model in PyTorch and note what its layers read.

    Args:
        folder: a Transformers model.
        readers: tensor → path of a layer that reads it.
        texts: token ids.
    """
    import torch
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    rows: dict[str, list[np.ndarray]] = {name: [] for name in readers}
    for name, path in readers.items():
        model.get_submodule(path).register_forward_pre_hook(
            lambda _, inputs, name=name: rows[name].append(inputs[0][0].numpy().copy())
        )
    with torch.no_grad():
        for text in texts:
            model(torch.from_numpy(np.asarray(text, np.int64)[None]))
    return {name: np.concatenate(parts) for name, parts in rows.items()}


def assert_describes(
    found: TensorStatistics, values: np.ndarray, *, tolerance: float, gram: bool
) -> None:
    """Compare statistics with all the values; `tolerance` is relative to the largest."""
    near = {"rtol": 0.0, "atol": tolerance * float(np.abs(values).max())}
    wide = values.astype(np.float64)
    assert found.count == values.size
    np.testing.assert_allclose(found.minimum, values.min(), **near)
    np.testing.assert_allclose(found.maximum, values.max(), **near)
    np.testing.assert_allclose(found.channel_absmax, np.abs(values).max(axis=0), **near)
    np.testing.assert_allclose(found.channel_minimum, values.min(axis=0), **near)
    np.testing.assert_allclose(found.channel_maximum, values.max(axis=0), **near)
    np.testing.assert_allclose(found.channel_mean, wide.mean(axis=0), **near)
    _assert_quantiles(found, values)
    if gram:
        second = wide.T @ wide / len(wide)
        np.testing.assert_allclose(found.gram, second, rtol=0, atol=tolerance * second.max())
    else:
        assert found.gram is None


def _assert_quantiles(found: TensorStatistics, values: np.ndarray) -> None:
    """As many values lie below a border between bins as the histogram says, about."""
    histogram = found.histogram
    for share in (0.001, 0.1, 0.5, 0.9, 0.999):
        bins = int(share * histogram.counts.size)
        border = (histogram.first_bin + bins) * histogram.bin_width
        # Values that float noise moves over the border are few.
        moved = int(np.sum(np.abs(values - border) <= 1e-4 * found.absmax))
        assert abs(int(np.sum(values < border)) - int(histogram.counts[:bins].sum())) <= moved
