"""Names of modules and nodes."""

import numpy as np
import pytest

from exporter.source.onnx_names import module_path, strip_wrappers
from exporter.source.self_check import row_cosines


@pytest.mark.parametrize(
    ("scopes", "path"),
    [
        (
            "['', 'transformer', 'transformer.model.encoder.layer.0.attention.self', 'linear']",
            "encoder.layer.0.attention.self",
        ),
        ("['', 'transformer', 'where']", "transformer"),
        ("['', 'pooling', 'div']", "pooling"),
        ("['_empty_nn_module_stack_from_metadata_hook', 'sym_size_int']", ""),
        ("['mul']", ""),
        ("", ""),
    ],
)
def test_module_path(scopes: str, path: str) -> None:
    assert module_path(scopes) == path


def test_only_the_wrapper_is_stripped() -> None:
    assert strip_wrappers("transformer.auto_model.layers.0.mlp") == "layers.0.mlp"
    assert strip_wrappers("dense.linear.weight") == "dense.linear.weight"


def test_cosines_of_rows() -> None:
    first = np.array([[1, 0], [0, 0], [0, 0], [1, 1]], np.float32)
    second = np.array([[0, 2], [0, 0], [1, 0], [2, 2]], np.float32)
    assert row_cosines(first, second) == pytest.approx([0, 1, 0, 1])
