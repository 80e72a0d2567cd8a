"""Options that commands share, and the flag that stands for an option of builds."""

from __future__ import annotations

import pytest
from typer.main import get_command

from exporter.cli.app import app
from exporter.cli.build import _options, _require_use
from exporter.config import Settings
from exporter.steps.building import build_options, require_two_steps
from targets.errors import ConfigError, UsageError
from targets.registry import load_target

PYCUDA = {"cuda_api": "pycuda"}
SHARED = ("--threads", "--cache", "--no-cache", "--quiet")


def helps(command: str) -> dict[str, str]:
    parameters = get_command(app).commands[command].params
    return {name: one.help for one in parameters for name in one.opts if hasattr(one, "help")}


@pytest.mark.parametrize("flag", SHARED)
def test_a_shared_option_is_told_in_the_same_words(flag):
    told = {helps(command)[flag] for command in ("build", "calibrate", "compatibility")}
    assert len(told) == 1


def test_cuda_api_is_an_option_of_both_commands():
    assert helps("export")["--cuda-api"] == helps("build")["--cuda-api"]
    assert _options(["cuda_graph=true"], PYCUDA) == {"cuda_graph": "true", "cuda_api": "pycuda"}
    assert _options(["cuda_api=pycuda"], PYCUDA) == {"cuda_api": "pycuda"}
    assert _options(["cuda_api=pycuda"], {"cuda_api": None}) == {"cuda_api": "pycuda"}
    assert build_options(Settings(cuda_api="pycuda")) == {"cuda_api": "pycuda"}
    assert build_options(Settings()) == {}


def test_two_packages_at_once_are_refused():
    with pytest.raises(UsageError, match="--cuda-api cuda-bindings and --option cuda_api=pycuda"):
        _options(["cuda_api=pycuda"], {"cuda_api": "cuda-bindings"})


def test_calibration_texts_that_nobody_reads_are_refused():
    given = {"calibration": "texts.jsonl", "num_samples": 10}
    _require_use(given, calibrates=True)
    _require_use({}, calibrates=False)
    with pytest.raises(UsageError, match="--calibration: this build reads no") as caught:
        _require_use(given, calibrates=False)
    assert "--calibrator tensorrt" in caught.value.hint
    with pytest.raises(UsageError, match="--num-samples"):
        _require_use({"num_samples": 10}, calibrates=False)


def test_it_is_refused_where_nobody_speaks_to_cuda():
    settings = Settings(cuda_api="pycuda")
    with pytest.raises(ConfigError, match="no target speaks to CUDA") as caught:
        require_two_steps(settings, [load_target("onnxruntime")])
    assert "onnxruntime" in caught.value.why
    require_two_steps(settings, [load_target("onnxruntime"), load_target("tensorrt")])
    require_two_steps(Settings(), [load_target("onnxruntime")])


def test_a_package_that_is_none_is_refused():
    with pytest.raises(ValueError, match="cuda-bindings"):
        Settings(cuda_api="cupy")
