"""ORT format as ONNX Runtime's own converter writes it: what runs, what is listed, what fails."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from contract.tiny_graph import INPUTS, LINEAR_PATHS, make_tokens
from ort_reading import feeds_of, listed_in, nodes_of, run_as_arm, types_of, with_operator

from targets.errors import CompileError, StorageError
from targets.onnxruntime.ort_format import convert

SCHEMES = ("U8S8", "S8S8", "U8U8")
INT8_PRODUCT = ("com.microsoft", 1, "MatMulIntegerToFloat")


def test_embeds_bit_for_bit_as_the_graph_does(quantized, encoder, converted):
    feeds = feeds_of(make_tokens(), INPUTS)
    for model in (encoder.artifact.path, *map(quantized, SCHEMES)):
        ort_model, _ = converted(model)
        expected = run_as_arm(model, feeds)
        np.testing.assert_array_equal(run_as_arm(ort_model, feeds), expected)
    other = run_as_arm(encoder.artifact.path, feeds)
    assert not np.array_equal(expected, other), "int8 and FP32 could not be told apart"


def test_every_scheme_runs_all_linear_layers_in_int8(quantized, encoder, converted):
    for integers in SCHEMES:
        ort_model, _ = converted(quantized(integers))
        assert nodes_of(ort_model)[INT8_PRODUCT] == len(LINEAR_PATHS), integers
    ort_model, _ = converted(encoder.artifact.path)
    assert nodes_of(ort_model)[INT8_PRODUCT] == 0


def test_nothing_suits_one_instruction_set_only(quantized, encoder, converted):
    """NCHWc nodes would bind the file to the machine that it was made on."""
    for model in (quantized("U8S8"), encoder.artifact.path):
        ort_model, _ = converted(model)
        assert {domain for domain, _, _ in nodes_of(ort_model)} == {"ai.onnx", "com.microsoft"}


def test_the_configuration_lists_the_operators_of_the_graph(quantized, converted, tmp_path):
    ort_model, config = converted(quantized("U8S8"))
    assert listed_in(config) == set(nodes_of(ort_model))
    planted = with_operator(quantized("U8S8"), "Sign", tmp_path)
    _, more = converted(planted)
    assert listed_in(more) - listed_in(config) == {("ai.onnx", 13, "Sign")}


def test_the_runtime_s_own_build_reads_the_configuration(quantized, converted, tmp_path):
    ort_model, config = converted(quantized("U8S8"))
    path = tmp_path / "operators.config"
    path.write_text(config)
    program = (
        "import sys, json; sys.modules['torch'] = None\n"
        "from onnxruntime.tools.reduced_build_config_parser import parse_config\n"
        "found, types = parse_config(sys.argv[1], True)\n"
        "print(json.dumps([(d, v, n) for d, one in found.items() for v in one for n in one[v]]))\n"
        "assert types is not None"
    )
    command = [sys.executable, "-c", program, str(path)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert {tuple(one) for one in json.loads(answer.stdout)} == set(nodes_of(ort_model))


@pytest.mark.parametrize(("integers", "dtype"), [("U8S8", "uint8_t"), ("S8S8", "int8_t")])
def test_the_configuration_lists_no_more_types_than_are_used(quantized, converted, integers, dtype):
    _, config = converted(quantized(integers))
    assert types_of(config, "QuantizeLinear") == {"outputs": {"0": [dtype]}}


def test_the_same_graph_gives_the_same_bytes_anywhere(quantized, converted, tmp_path):
    moved = Path(shutil.copy(quantized("U8S8"), tmp_path))
    first, config = converted(quantized("U8S8"))
    second, again = converted(moved)
    assert first.read_bytes() == second.read_bytes()
    assert config == again
    other, _ = converted(quantized("S8S8"))
    assert first.read_bytes() != other.read_bytes()


def test_no_path_of_this_machine_gets_into_the_files(quantized, converted):
    ort_model, config = converted(quantized("U8S8"))
    for folder in (ort_model.parent, quantized("U8S8").parent):
        assert str(folder) not in config
        assert str(folder).encode() not in ort_model.read_bytes()


def test_a_broken_file_is_refused_with_the_runtime_s_words(converted, tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no graph")
    with pytest.raises(CompileError, match=r"converting broken\.onnx") as raised:
        converted(broken)
    assert "INVALID" in raised.value.why
    assert "site-packages" not in raised.value.why


def test_an_operator_that_the_runtime_lacks_is_named(quantized, converted, tmp_path):
    planted = with_operator(quantized("U8S8"), "NoSuchOperator", tmp_path)
    with pytest.raises(CompileError, match="NoSuchOperator"):
        converted(planted)


def test_a_folder_that_is_not_there_is_a_storage_error(quantized, tmp_path):
    missing = tmp_path / "missing"
    with pytest.raises(StorageError, match=r"model\.ort"):
        convert(quantized("U8S8"), missing / "model.ort", missing / "operators.config")
