"""API contract: the builder's whole path on the names and signatures of TensorRT 10 and 11.

The stand-in computes nothing; what these tests prove is that every call exists in both versions,
takes these arguments, and that every answer that means "no" becomes an error of ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tensorrt_api.stand_in import VERSIONS, NotCarried, StandIn, make_module

from targets.errors import CompileError
from targets.tensorrt import engine
from targets.tensorrt.build_plan import BuildPlan, Profile
from targets.tensorrt.engine import build_engine

INPUTS = ("input_ids", "attention_mask")
SHORT = Profile(smallest=(1, 1), typical=(8, 16), largest=(64, 32))
LONG = Profile(smallest=(1, 1), typical=(8, 64), largest=(64, 256))
GRAPH = Path("model.onnx")


def plan(**changes: Any) -> BuildPlan:
    return BuildPlan(**{"graph": "m.onnx", "inputs": INPUTS, "profiles": (SHORT, LONG), **changes})


def module_of(major: int, **answers: Any) -> StandIn:
    """Answers are `Class__member=value`; the network has the plan's inputs."""
    made: StandIn

    def get_input(_: Any, index: int) -> Any:
        tensor = made.new("ITensor")
        tensor.name = INPUTS[index]
        return tensor

    known = {
        "INetworkDefinition.num_inputs": len(INPUTS),
        "INetworkDefinition.get_input": get_input,
    }
    given = {name.replace("__", ".", 1): value for name, value in answers.items()}
    made = make_module(major, known | given)
    return made


@pytest.fixture(params=VERSIONS)
def major(request: pytest.FixtureRequest) -> int:
    return request.param


# ------------------------------------------------------------------------- the whole path


def test_the_builder_calls_only_what_this_version_has(major):
    module = module_of(major)
    built = build_engine(module, GRAPH, plan(hardware_compatible=True, version_compatible=True))
    assert built.data == b"ftrt-stand-in"
    (made,) = module.called("Builder.create_network")
    assert made["flags"] == 1 << module.NetworkDefinitionCreationFlag.STRONGLY_TYPED.value
    shapes = [(c["input"], c["max"]) for c in module.called("IOptimizationProfile.set_shape")]
    assert shapes == [(name, one.largest) for one in (SHORT, LONG) for name in INPUTS]
    assert module.called("IBuilderConfig.set_flag") == [
        {"flag": module.BuilderFlag.VERSION_COMPATIBLE}
    ]
    assert module.called("IBuilderConfig.avg_timing_iterations") == [{"value": 8}]


def test_strongly_typed_is_another_number_in_11():
    flags = {v: int(make_module(v).NetworkDefinitionCreationFlag.STRONGLY_TYPED) for v in VERSIONS}
    assert flags == {10: 1, 11: 0}


# ---------------------------------------------------------------- every "no" is an error


def test_a_parser_that_says_false_is_told_with_node_and_operator(major):
    refusal = {
        "OnnxParser__parse_from_file": False,
        "OnnxParser__num_errors": 1,
        "ParserError__node_name": "/layer/ffn/Gelu",
        "ParserError__node_operator": "Gelu",
        "ParserError__desc": "no importer",
    }
    with pytest.raises(CompileError, match="parser refuses") as caught:
        build_engine(module_of(major, **refusal), GRAPH, plan())
    assert caught.value.why == "/layer/ffn/Gelu (Gelu): no importer"


def test_a_profile_numbered_minus_one_is_refused(major):
    module = module_of(major, IBuilderConfig__add_optimization_profile=-1)
    with pytest.raises(CompileError, match="refuses optimization profile 0"):
        build_engine(module, GRAPH, plan())


def test_a_profile_that_is_false_is_refused(major):
    module = module_of(major, IOptimizationProfile____bool__=False)
    with pytest.raises(CompileError, match="refuses optimization profile 0"):
        build_engine(module, GRAPH, plan())


def test_no_engine_is_an_error_with_what_the_logger_heard(major):
    def build(_: Any, network: Any, config: Any) -> None:
        logger = module.called("Builder.__init__")[0]["logger"]
        logger.log(module.ILogger.Severity.ERROR, "no tactic for MatMul")

    module = module_of(major, Builder__build_serialized_network=build)
    with pytest.raises(CompileError, match="builds no engine") as caught:
        build_engine(module, GRAPH, plan())
    assert "no tactic for MatMul" in caught.value.why


def test_a_graph_of_other_inputs_is_refused(major):
    with pytest.raises(CompileError, match="the build plan feeds"):
        build_engine(module_of(major, INetworkDefinition__num_inputs=1), GRAPH, plan())


# ------------------------------------------------------- the stand-in refuses what is wrong


def broken(monkeypatch: pytest.MonkeyPatch, name: str, call: Any) -> None:
    monkeypatch.setattr(engine, name, call)


def test_a_misspelt_property_fails(major, monkeypatch):
    def configure(module: Any, config: Any, plan: BuildPlan) -> None:
        config.average_timing_iterations = 8

    broken(monkeypatch, "_configure", configure)
    with pytest.raises(AttributeError, match="average_timing_iterations"):
        build_engine(module_of(major), GRAPH, plan())


def test_a_misspelt_method_fails(major, monkeypatch):
    broken(monkeypatch, "_configure", lambda module, config, plan: config.set_workspace(1))
    with pytest.raises(AttributeError, match="set_workspace"):
        build_engine(module_of(major), GRAPH, plan())


@pytest.mark.parametrize("flag", ["FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS", "BF16"])
def test_flags_of_weak_typing_are_in_10_and_gone_from_11(flag, monkeypatch):
    broken(
        monkeypatch,
        "_configure",
        lambda module, config, plan: config.set_flag(getattr(module.BuilderFlag, flag)),
    )
    build_engine(module_of(10), GRAPH, plan())
    with pytest.raises(AttributeError, match=flag):
        build_engine(module_of(11), GRAPH, plan())


def test_calibrators_and_their_setter_are_gone_from_11():
    new = make_module(11)
    assert isinstance(make_module(10).IInt8EntropyCalibrator2, type)
    with pytest.raises(AttributeError, match="IInt8EntropyCalibrator2"):
        _ = new.IInt8EntropyCalibrator2
    config = new.new("IBuilderConfig")
    with pytest.raises(AttributeError, match="int8_calibrator"):
        config.int8_calibrator = object()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda module, config: config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE),
        lambda module, config: config.set_memory_pool_limit(0, 1 << 30),
        lambda module, config: config.set_flag(flags=module.BuilderFlag.TF32),
        lambda module, config: config.set_flag(module.DataType.HALF),
        lambda module, config: setattr(config, "profiling_verbosity", 2),
        lambda module, config: module.OnnxParser(module.new("INetworkDefinition")),
        lambda module, config: module.IBuilderConfig(),
    ],
    ids=["few", "no enum", "keyword", "other enum", "number", "constructor", "made by TensorRT"],
)
def test_what_the_signatures_do_not_take_fails(major, wrong):
    module = make_module(major)
    with pytest.raises(TypeError):
        wrong(module, module.new("IBuilderConfig"))


def test_what_only_tensorrt_writes_cannot_be_written(major):
    config = make_module(major).new("IBuilderConfig")
    with pytest.raises(AttributeError):
        config.num_optimization_profiles = 3


def test_a_subclass_that_forgets_its_base_is_refused(major):
    module = make_module(major)

    class Forgetful(module.ILogger):
        def __init__(self) -> None:
            pass

    with pytest.raises(TypeError, match="must be called"):
        Forgetful()


def test_an_answer_for_a_member_that_does_not_exist_is_refused(major):
    with pytest.raises(AttributeError, match=r"Builder\.build_cuda_engine"):
        make_module(major, {"Builder.build_cuda_engine": None})


def test_what_the_facts_leave_out_is_not_taken_for_missing(major):
    with pytest.raises(NotCarried, match="Refitter"):
        _ = make_module(major).Refitter
