"""TensorRT's calibration cache: its bytes, our scales in it, and damage by line."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import onnx
import pytest
from contract.tiny_graph import make_tokens, write_tiny_graph
from contract.tiny_plans import calibrated_table, write_plans
from hypothesis import given
from hypothesis import strategies as st

from targets.contract import CompileRequest
from targets.errors import CalibrationError
from targets.quantization.calibrators import choose_range
from targets.quantization.layers import read_layers
from targets.tensorrt.calibration_cache import (
    CalibrationCache,
    cache_of_graph,
    cache_of_table,
    different_scales,
    stamped,
)
from targets.tensorrt.files import CACHE_FILE, CACHE_VERSION
from targets.tensorrt.recipes import FLOAT16, INT8
from targets.tensorrt.target import TensorRtTarget

VERSION = (10, 16, 1)
SAMPLE = (
    b"TRT-101601-EntropyCalibration2\n"
    b"input_ids: 3c010204\n"
    b"/encoder/layer.0/output::sum: 3f800000\n"
    b"(Unnamed Layer* 3) [Shuffle]_output: 00000001\n"
)
"""In TensorRT's form: colons, spaces and brackets in names, leading zeros in scales."""


def test_lines_of_tensorrt_s_form_are_read():
    cache = CalibrationCache.from_bytes(SAMPLE)
    assert cache.version == VERSION
    assert cache.algorithm == "EntropyCalibration2"
    assert cache.scales == {
        "input_ids": pytest.approx(1 / 127, rel=1e-6),
        "/encoder/layer.0/output::sum": 1.0,
        "(Unnamed Layer* 3) [Shuffle]_output": 2.0**-149,
    }


def test_what_was_read_is_written_byte_for_byte():
    assert CalibrationCache.from_bytes(SAMPLE).to_bytes() == SAMPLE


def test_another_version_s_header_keeps_every_line():
    moved = stamped(SAMPLE, (10, 9, 0))
    assert moved == SAMPLE.replace(b"TRT-101601-", b"TRT-100900-")
    with pytest.raises(CalibrationError, match="line 2"):
        stamped(SAMPLE.replace(b"3c010204", b""), (10, 9, 0))


@given(
    st.dictionaries(
        st.from_regex(r"[!-~][ -~]{0,20}[!-~]", fullmatch=True),
        st.floats(2.0**-100, 2.0**100, width=32),
        max_size=6,
    )
)
def test_any_names_and_scales_survive(scales):
    made = CalibrationCache(scales=scales, version=(10, 3, 0))
    assert CalibrationCache.from_bytes(made.to_bytes()) == made


def test_scales_are_big_endian_float32_in_eight_digits():
    data = CalibrationCache(scales={"x": 0.0078125}, version=VERSION).to_bytes()
    assert data == b"TRT-101601-EntropyCalibration2\nx: 3c000000\n"
    little = struct.pack("<f", 0.0078125).hex().encode()
    assert little not in data


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda data: b"", 1),
        (lambda data: data.split(b"\n", 1)[1], 1),
        (lambda data: b"\xff" + data, 1),
        (lambda data: data.replace(b"3c010204", b"3c010a1"), 2),
        (lambda data: data.replace(b"3c010204", b"3c010a1g"), 2),
        (lambda data: data.replace(b"3f800000", b"7fc00000"), 3),
        (lambda data: data.replace(b"3f800000", b"bf800000"), 3),
        (lambda data: data + b"input_ids: 3c010204\n", 5),
        (lambda data: data[:-6], 4),
    ],
    ids=["empty", "no header", "bytes", "short", "letter", "nan", "negative", "twice", "cut"],
)
def test_damage_is_named_by_its_line(damage, line):
    with pytest.raises(CalibrationError, match=f"line {line} of the calibration cache"):
        CalibrationCache.from_bytes(damage(SAMPLE))


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf"), 1e-60, 1e60])
def test_scales_that_are_none_are_not_written(scale):
    with pytest.raises(CalibrationError, match="'x'"):
        CalibrationCache(scales={"x": scale}, version=VERSION).to_bytes()


@pytest.mark.parametrize("name", ["", "a\nb"])
def test_names_that_break_a_line_are_not_written(name):
    with pytest.raises(CalibrationError, match="no name"):
        CalibrationCache(scales={name: 1.0}, version=VERSION).to_bytes()


# ------------------------------------------------------------------------- our own scales


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def graph(folder):
    return write_tiny_graph(folder).artifact


@pytest.fixture(scope="module")
def tokens():
    return make_tokens(24)


def test_the_table_s_ranges_are_127_scales(graph, tokens):
    table = calibrated_table(graph, tokens, gram=False)
    cache = CalibrationCache.from_bytes(cache_of_table(table, VERSION).to_bytes())
    activations = {layer.activation for layer in read_layers(onnx.load(graph.path)).linears}
    assert activations <= set(cache.scales)
    for name in activations:
        wanted = choose_range(table.tensors[name], "entropy", symmetric=True)
        assert cache.scales[name] * 127 == pytest.approx(wanted.high, rel=1e-6)
    widest = cache_of_table(table, VERSION, "minmax", tensors=sorted(activations))
    assert set(widest.scales) == activations
    assert all(widest.scales[name] >= cache.scales[name] for name in activations)


def test_a_tensor_that_is_not_in_the_table_is_refused(graph, tokens):
    table = calibrated_table(graph, tokens, gram=False)
    with pytest.raises(CalibrationError, match="no_such"):
        cache_of_table(table, VERSION, tensors=["no_such"])


def test_two_caches_are_compared_line_by_line():
    ours = CalibrationCache(scales={"a": 1.0, "b": 1.0, "c": 1.0}, version=VERSION)
    theirs = CalibrationCache(scales={"a": 1.001, "b": 1.5, "d": 1.0}, version=VERSION)
    assert different_scales(ours, theirs) == {"b": (1.0, 1.5), "c": (1.0, None), "d": (None, 1.0)}
    assert different_scales(ours, ours) == {}


def test_a_prepared_int8_artifact_holds_its_scales(graph, tokens, folder, monkeypatch):
    monkeypatch.setattr(TensorRtTarget, "_compiled", lambda *_: [])  # RTX has tests of its own
    target = TensorRtTarget()
    hardware = target.prepared_hardware(())
    recipes = {one.name: one for one in target.candidates(graph, hardware)}
    plans = write_plans(folder / "plans.npz", graph, tokens, recipes[INT8].scheme)

    def compiled(name: str) -> set[str]:
        (folder / name).mkdir()
        request = CompileRequest(
            graph=graph,
            recipe=recipes[name],
            calibration=tokens,
            plans=plans if name == INT8 else None,
            hardware=hardware,
            output_dir=folder / name,
            num_threads=1,
            seed=0,
        )
        return {file.path for file in target.compile(request).files}

    assert CACHE_FILE in compiled(INT8)
    assert CACHE_FILE not in compiled(FLOAT16)
    cache = CalibrationCache.from_bytes((folder / INT8 / CACHE_FILE).read_bytes())
    assert cache.version == CACHE_VERSION
    model = onnx.load(folder / INT8 / "model_int8.onnx")
    stored = {one.name: one for one in model.graph.initializer}
    pairs = [n for n in model.graph.node if n.op_type == "QuantizeLinear"]
    assert len(cache.scales) == len(pairs) > 0
    for node in pairs:
        scale = onnx.numpy_helper.to_array(stored[node.input[1]])
        assert scale.dtype == np.float16
        assert cache.scales[node.input[0]] == float(scale)
    assert cache == cache_of_graph(model, VERSION)
