"""What the OpenVINO target says without OpenVINO: plans, places, names, calibration batches."""

from __future__ import annotations

import importlib.util
import logging
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from targets.contract import (
    ArtifactFile,
    CompiledArtifact,
    Hardware,
    OnnxArtifact,
    Recipe,
    TensorSpec,
    TokenSequences,
)
from targets.errors import CompileError, NotInstalledError
from targets.openvino import sdk
from targets.openvino.ir import first_line, settle_names
from targets.openvino.layers import module_path
from targets.openvino.quantize import MAX_BATCH_TOKENS, calibration_batches
from targets.openvino.recipes import recipes_for
from targets.openvino.target import OpenVinoTarget
from targets.registry import open_device

NAMES = ("input_ids", "attention_mask", "token_type_ids")


def hardware(*features: str) -> Hardware:
    return Hardware(
        architecture="x86_64",
        vendor="",
        model_name="",
        microarchitecture="",
        features=frozenset(features),
        num_cores=1,
        memory_bytes=1,
    )


AMX = hardware("avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
VNNI = hardware("avx512_vnni")


def graph_with(*inputs: str) -> OnnxArtifact:
    return OnnxArtifact(
        path=Path("model.onnx"),
        sha256="0" * 64,
        opset=20,
        inputs=tuple(TensorSpec(name=n, dtype="int64", shape=("b", "s")) for n in inputs),
        outputs=(),
        model_id="m",
        revision=None,
        embedding_dim=384,
        pooling="mean",
        normalized=True,
        max_seq_length=256,
    )


def artifact_of(recipe: Recipe) -> CompiledArtifact:
    files = (
        ArtifactFile(path="openvino_model.xml", sha256="", size_bytes=1),
        ArtifactFile(path="openvino_model.bin", sha256="", size_bytes=1),
    )
    return CompiledArtifact(
        directory=Path("out"),
        files=files,
        target="openvino",
        recipe=recipe,
        built_from="",
        device_requirement=(),
        tool_versions={},
        compile_s=1.0,
    )


def plan_for(name: str, machine: Hardware = AMX, inputs: tuple[str, ...] = NAMES):
    recipe = next(recipe for recipe in recipes_for(machine) if recipe.name == name)
    return OpenVinoTarget().run_plan(artifact_of(recipe), graph_with(*inputs), 1, 3)


# ------------------------------------------------------------------------------- plans


@pytest.mark.parametrize(
    ("name", "machine", "hint", "group"),
    [
        ("float32", AMX, "f32", "0"),
        ("bfloat16", AMX, "bf16", "0"),
        ("int8", AMX, "bf16", "0"),
        ("int8-static", AMX, "bf16", "0"),
        ("int8-static", VNNI, "f32", "0"),
        ("int8-weights", AMX, "bf16", "0"),
        ("int8", VNNI, "f32", "0"),
        ("int8-dynamic", VNNI, "f32", "32"),
        ("int8-dynamic-128", VNNI, "f32", "128"),
        ("float16", hardware("asimdhp"), "f16", "0"),
    ],
)
def test_options_leave_nothing_to_the_runtime(name, machine, hint, group):
    assert plan_for(name, machine).options == {
        "INFERENCE_PRECISION_HINT": hint,
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": group,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": "3",
    }


def test_the_plan_feeds_what_the_graph_takes():
    assert plan_for("float32").inputs == NAMES
    plan = plan_for("float32", inputs=NAMES[:2])
    assert plan.inputs == NAMES[:2]
    assert (plan.pad_token_id, plan.embedding_dim, plan.max_seq_length) == (1, 384, 256)
    assert plan.model == Path("out/openvino_model.xml")
    assert plan.output == "sentence_embedding"
    assert (plan.length_multiple, plan.max_batch_tokens) == (16, 2048)
    assert plan.adapter.name == "session.py"
    assert plan.adapter.is_file()


def test_int8_is_shipped_under_its_usual_name_too():
    target = OpenVinoTarget()
    recipes = {recipe.name: recipe for recipe in recipes_for(AMX)}
    places = [place for _, place in target.ship(artifact_of(recipes["bfloat16"]))]
    assert places == [
        "openvino/openvino_model.xml",
        "openvino/openvino_model.bin",
        "openvino/ov_config.json",
    ]
    places = [place for _, place in target.ship(artifact_of(recipes["int8"]))]
    assert places[:2] == ["openvino/openvino_model.xml", "openvino/openvino_model.bin"]
    assert places[2] == "openvino/openvino_model_qint8_quantized.xml"
    assert places[4:] == ["openvino/ov_config.json"]


# --------------------------------------------------------------- what is not installed


def test_without_nncf_only_our_own_int8_is_left_and_the_probe_says_so(monkeypatch):
    found = importlib.util.find_spec
    absent = lambda name: None if name == "nncf" else found(name)  # noqa: E731
    monkeypatch.setattr(sdk.util, "find_spec", absent)
    monkeypatch.setitem(sys.modules, "openvino", sys)
    target = OpenVinoTarget()
    names = [recipe.name for recipe in target.candidates(None, AMX)]
    assert names == ["float32", "int8-static", "bfloat16"]
    answer = target.probe(open_device("local"))
    assert answer.ok
    assert "nncf is not installed" in answer.missing[0]
    assert "pip install 'embedding-exporter[openvino]'" in answer.missing[0]


def test_without_openvino_the_probe_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    answer = OpenVinoTarget().probe(open_device("local"))
    assert not answer.ok
    assert "pip install 'embedding-exporter[openvino]'" in answer.missing[0]
    with pytest.raises(NotInstalledError) as caught:
        sdk.import_openvino()
    assert caught.value.hint == "pip install 'embedding-exporter[openvino]'"


def test_sdks_are_imported_without_their_usage_reports(monkeypatch):
    monkeypatch.delitem(sys.modules, "openvino_telemetry", raising=False)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(NotInstalledError):
        sdk.import_openvino()
    assert sys.modules.pop("openvino_telemetry", "absent") is None


def test_quiet_silences_and_gives_back(capsys):
    import rich

    logger = logging.getLogger("nncf")
    before = (logger.level, rich.get_console().quiet)
    with sdk.quiet():
        rich.get_console().print("noise")
        logger.error("noise")
        warnings.warn("noise", stacklevel=1)
    assert (logger.level, rich.get_console().quiet) == before
    rich.get_console().print("signal")
    printed = capsys.readouterr()
    assert "noise" not in printed.out + printed.err
    assert "signal" in printed.out


def test_quiet_gives_back_after_an_error():
    import rich

    with pytest.raises(ValueError, match="inside"), sdk.quiet():
        raise ValueError("inside")
    assert not rich.get_console().quiet


# ------------------------------------------------------------------ calibration batches


def texts_of(*lengths: int) -> TokenSequences:
    rows = [np.full(length, number + 1, np.int32) for number, length in enumerate(lengths)]
    return TokenSequences.from_lists(rows, 0)


def test_batches_hold_texts_of_one_length_and_no_padding():
    tokens = texts_of(5, 3, 5, 7, 3, 5)
    batches = calibration_batches(tokens, NAMES)
    assert [batch["input_ids"].shape for batch in batches] == [(2, 3), (3, 5), (1, 7)]
    for batch in batches:
        assert list(batch) == list(NAMES)
        assert all(array.dtype == np.int64 for array in batch.values())
        assert (batch["attention_mask"] == 1).all()
        assert (batch["token_type_ids"] == 0).all()
        assert (batch["input_ids"] != tokens.pad_token_id).all()
    seen = sorted(int(row[0]) for batch in batches for row in batch["input_ids"])
    assert seen == [1, 2, 3, 4, 5, 6], "every text is fed once"


def test_batches_stay_small_and_long_texts_come_alone():
    batches = calibration_batches(texts_of(*[512] * 9, MAX_BATCH_TOKENS + 1), NAMES)
    assert [batch["input_ids"].shape[0] for batch in batches] == [4, 4, 1, 1]


def test_a_graph_without_token_types_is_not_fed_any():
    assert list(calibration_batches(texts_of(3), NAMES[:2])[0]) == list(NAMES[:2])


def test_empty_texts_are_left_out():
    assert len(calibration_batches(texts_of(0, 3, 0), NAMES)) == 1


@pytest.mark.parametrize("lengths", [(), (0, 0)])
def test_no_text_is_an_error(lengths):
    with pytest.raises(CompileError, match="no calibration texts"):
        calibration_batches(texts_of(*lengths), NAMES)


def test_an_input_that_nobody_can_feed_is_named():
    with pytest.raises(CompileError, match="position_ids"):
        calibration_batches(texts_of(3), (*NAMES, "position_ids"))


# ------------------------------------------------------------------------------- names


class FakeNode:
    def __init__(self, name: str) -> None:
        self.name = name

    def get_friendly_name(self) -> str:
        return self.name

    def set_friendly_name(self, name: str) -> None:
        self.name = name


class FakeModel:
    def __init__(self, *names: str) -> None:
        self.nodes = [FakeNode(name) for name in names]

    def get_ordered_ops(self) -> list[FakeNode]:
        return self.nodes

    def names(self) -> list[str]:
        return [node.name for node in self.nodes]


def settled(*names: str) -> list[str]:
    model = FakeModel(*names)
    settle_names(model)
    return model.names()


def test_made_up_names_are_numbered_in_order():
    assert settled("Constant_812", "layer.0/MatMul", "MVN_9", "Constant_3") == [
        "Constant.1",
        "layer.0/MatMul",
        "MVN.1",
        "Constant.2",
    ]
    assert settled("Constant_1", "layer.0/MatMul", "MVN_2", "Constant_4") == settled(
        "Constant_812", "layer.0/MatMul", "MVN_9", "Constant_3"
    )


def test_module_paths_keep_their_names():
    kept = ["encoder.layer.0/MatMul_1", "val_53", "input_ids", "last_hidden_state"]
    assert settled(*kept) == kept


def test_repeated_and_taken_names_get_new_ones():
    assert settled("a/Add", "a/Add", "MVN_5", "MVN.1") == ["a/Add", "a/Add.2", "MVN.2", "MVN.1"]
    twice = settled("MVN_5", "MVN_6")
    assert settled(*twice) == twice, "settled names stay"


@pytest.mark.parametrize(
    ("node", "path"),
    [
        ("encoder.layer.0.output.dense/MatMul", "encoder.layer.0.output.dense"),
        ("/encoder/layer.0/output/dense/MatMul", "encoder.layer.0.output.dense"),
        ("node_MatMul_94", "node_MatMul_94"),
    ],
)
def test_module_paths_are_read_from_names(node, path):
    assert module_path(node) == path


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("Exception from src/core.cpp:1:\n  Check failed\n  more", "Check failed"),
        ("plain", "plain"),
        ("", ""),
    ],
)
def test_the_telling_line_of_a_message(message, line):
    assert first_line(RuntimeError(message)) == line
