"""The tiny encoder of the contract tests, as ONNX and in OpenVINO."""

from __future__ import annotations

from pathlib import Path

import pytest
from contract.tiny_graph import TinyGraph, write_tiny_graph


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyGraph:
    pytest.importorskip("openvino", reason="pip install 'embedding-exporter[openvino]'")
    folder: Path = tmp_path_factory.mktemp("tiny_encoder")
    return write_tiny_graph(folder)
