"""Which file a helper wrote: the names of presets begin alike."""

from __future__ import annotations

import pytest

from benchmarks.side_programs.export_onnx import _file_of

WRITTEN = {
    "avx2": "onnx/model_quint8_avx2.onnx",
    "avx512": "onnx/model_qint8_avx512.onnx",
    "avx512_vnni": "onnx/model_qint8_avx512_vnni.onnx",
    "O1": "onnx/model_O1.onnx",
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "onnx").mkdir()
    for path in ("onnx/model.onnx", *WRITTEN.values()):
        (tmp_path / path).touch()
    return tmp_path


@pytest.mark.parametrize("name", WRITTEN)
def test_every_form_is_told_from_the_others(folder, name):
    assert _file_of(name, folder) == WRITTEN[name]


@pytest.mark.parametrize("name", ["O2", "arm64"])
def test_a_form_that_was_not_written_is_an_error(folder, name):
    with pytest.raises(ValueError, match="not enough values"):
        _file_of(name, folder)
