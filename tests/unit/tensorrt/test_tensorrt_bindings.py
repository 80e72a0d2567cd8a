"""The stand-in against real bindings of NVIDIA's: TensorRT for RTX, which installs without a GPU.

It has its own version numbers, but the calls that we make are the same; so what the facts say of
them can be held against a module that is really there.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tensorrt_api import fake_cuda, generate
from tensorrt_api.fake_engine import INPUTS, FakeEngine
from tensorrt_api.stand_in import VERSIONS, StandIn, facts_of

from targets.errors import NotInstalledError
from targets.tensorrt.build_plan import BuildPlan, Profile
from targets.tensorrt.engine import build_engine
from targets.tensorrt.sdk import import_rtx
from targets.tensorrt.session import open_session

pytestmark = pytest.mark.tensorrt_rtx

PROFILE = Profile(smallest=(1, 1), typical=(2, 4), largest=(4, 8))
PLAN = BuildPlan(graph="m.onnx", inputs=INPUTS, profiles=(PROFILE,), version_compatible=True)


@pytest.fixture(scope="module")
def rtx() -> ModuleType:
    try:
        return import_rtx()
    except NotInstalledError as error:
        pytest.skip(f"no TensorRT for RTX here: {error.hint}")


def calls_of(major: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Build and run on the stand-in; it has listed every call."""
    engine = FakeEngine(fake_cuda.install(monkeypatch))
    module: StandIn

    def get_input(_: Any, index: int) -> Any:
        tensor = module.new("ITensor")
        tensor.name = INPUTS[index]
        return tensor

    module = engine.module(
        major,
        INetworkDefinition__num_inputs=len(INPUTS),
        INetworkDefinition__get_input=get_input,
    )
    path = folder / "model.plan"
    path.write_bytes(build_engine(module, Path("m.onnx"), PLAN).data)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    options = {"cuda_graph": "1", "host_code": "1"}
    plan = SimpleNamespace(inputs=INPUTS, output="sentence_embedding", options=options)
    session = open_session(path, plan)
    ids = np.full((2, 3), 5)
    session.run({"input_ids": ids, "attention_mask": np.ones_like(ids)})
    session.inspect({})
    session.close()
    return module


def real_signatures(module: ModuleType, owner: str, name: str) -> list[str]:
    found = generate._signatures(getattr(getattr(module, owner), name))
    return [one.replace("tensorrt_rtx_bindings.tensorrt_rtx.", "") for one in found]


@pytest.mark.parametrize("major", VERSIONS)
def test_every_call_of_ours_has_the_same_signature_in_real_bindings(
    rtx, major, tmp_path, monkeypatch
):
    called = {name for name, _ in calls_of(major, tmp_path, monkeypatch).calls}
    facts = facts_of(major)["classes"]
    compared = 0
    for owner, name in sorted(one.split(".") for one in called):
        about = facts[owner]
        if name in about["properties"]:
            assert isinstance(getattr(getattr(rtx, owner), name), property)
        else:
            ours, real = about["methods"][name], real_signatures(rtx, owner, name)
            # overloads that one of the two has alone are no matter: ours are found in both
            assert set(ours) & set(real), f"{owner}.{name}: {ours} and {real}"
        compared += 1
    assert compared >= 30


def test_a_changed_fact_would_be_noticed(rtx):
    real = real_signatures(rtx, "IExecutionContext", "set_device_memory")
    ours = facts_of(11)["classes"]["IExecutionContext"]["methods"]["set_device_memory"]
    assert real == ours
    assert [one.replace("size", "size_bytes") for one in ours] != real


def test_rtx_is_without_what_ended_with_10(rtx):
    assert not hasattr(rtx, "IInt8EntropyCalibrator2")
    assert not hasattr(rtx.BuilderFlag, "INT8")
