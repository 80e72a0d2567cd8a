"""The session is several files: they run in a folder of their own, away from the project."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from contract.tiny_graph import make_tokens

from targets.errors import RunnerFailedError
from targets.pytorch.target import ADAPTER, ADAPTER_PARTS, TorchTarget
from targets.registry import open_device


def test_every_file_that_the_session_loads_is_named():
    loaded = re.findall(r'_sibling\("(\w+)"\)', ADAPTER.read_text("utf-8"))
    assert {f"{name}.py" for name in loaded} == set(ADAPTER_PARTS)


def test_the_session_and_its_parts_travel_alone(bench, recipes, tmp_path):
    artifact = bench.build(recipes("float32"))
    plan = TorchTarget().run_plan(artifact, bench.graph.artifact, 0, 1)
    for name in (plan.adapter.name, *plan.adapter_parts):
        shutil.copyfile(plan.adapter.with_name(name), tmp_path / name)
    moved = replace(plan, adapter=tmp_path / plan.adapter.name)
    with open_device("local").start(moved, 1) as runner:
        assert np.allclose(runner.embed(make_tokens()), bench.expected(), atol=1e-5)
        assert runner.inspect(make_tokens())
    (tmp_path / "pooling.py").unlink()
    with pytest.raises(RunnerFailedError, match=r"pooling\.py"):
        open_device("local").start(moved, 1)
