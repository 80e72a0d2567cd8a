"""Side environments: pinned, built whole or not at all, deaf to this process's settings."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from benchmarks import side_env
from benchmarks.side_env import SideEnvironment, requirements_file, requirements_sha256
from targets.errors import StepError

NAMES = ("onnxruntime", "openvino")
ECHO = """
import json, os, sys
request = json.load(open(sys.argv[1]))
names = ("PYTHONPATH", "HF_TOKEN", "HF_HUB_OFFLINE", "HF_HOME")
found = {name: os.environ.get(name) for name in names}
json.dump({"request": request, "environment": found, "path": sys.path}, open(sys.argv[2], "w"))
"""


@pytest.fixture
def environment(tmp_path) -> SideEnvironment:
    """This interpreter where a side environment's would be."""
    (tmp_path / "environment" / "bin").mkdir(parents=True)
    (tmp_path / "environment" / "bin" / "python").symlink_to(sys.executable)
    return SideEnvironment(name="openvino", directory=tmp_path / "environment")


def program(folder, text):
    file = folder / "program.py"
    file.write_text(text)
    return file


@pytest.mark.parametrize("name", NAMES)
def test_every_package_is_pinned_and_none_needs_cuda(name):
    lines = requirements_file(name).read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
    names = {pin.split("==")[0].lower() for pin in pins}
    assert {"torch", "transformers", "sentence-transformers", "requests"} <= names
    assert not [one for one in names if one.startswith(("nvidia", "triton", "torchvision"))]


def test_the_key_follows_the_requirements(monkeypatch, tmp_path):
    before = requirements_sha256("openvino")
    changed = tmp_path / "requirements.txt"
    changed.write_text(requirements_file("openvino").read_text() + "one-more==1.0\n")
    monkeypatch.setitem(side_env._REQUIREMENTS, "openvino", str(changed))
    assert requirements_sha256("openvino") != before


def test_a_program_gets_its_request_and_nothing_of_this_process(environment, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("HF_TOKEN", "secret")
    found = environment.run(program(tmp_path, ECHO), {"texts": ["é"]})
    assert found["request"] == {"texts": ["é"]}
    assert found["environment"]["PYTHONPATH"] is None
    assert found["environment"]["HF_TOKEN"] is None
    assert found["environment"]["HF_HUB_OFFLINE"] == "1"
    assert not Path(found["environment"]["HF_HOME"]).exists()
    assert str(Path.cwd()) not in found["path"]


def test_a_failed_program_s_last_words_are_the_error_s_why(environment, tmp_path):
    with pytest.raises(StepError, match=r"program\.py failed in the openvino") as caught:
        environment.run(program(tmp_path, "raise SystemExit('no such model')"), {})
    assert "no such model" in caught.value.why


def test_a_failed_installation_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv(side_env.ROOT_VARIABLE, str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    notes: list[str] = []
    with pytest.raises(StepError, match="requirements-openvino") as caught:
        side_env.side_environment("openvino", notes.append)
    assert "torch" in caught.value.why
    assert list(tmp_path.iterdir()) == []
    assert len(notes) == 1
