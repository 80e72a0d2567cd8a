"""A bundle's configuration and tokenizer, read by two other versions of Transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
from bundle_cases import copy_of

from benchmarks.side_env import SideEnvironment
from targets.errors import StepError

pytestmark = [pytest.mark.network, pytest.mark.slow, pytest.mark.openvino, pytest.mark.model]

PROGRAM = Path(__file__).with_name("load_with_transformers.py")


@pytest.fixture(params=["openvino_environment", "onnxruntime_environment"])
def environment(request: pytest.FixtureRequest) -> SideEnvironment:
    found: SideEnvironment = request.getfixturevalue(request.param)
    return found


def request_for(folder, bundle, texts):
    max_length = bundle.report.model.max_seq_length
    return {"bundle": str(folder), "texts": texts, "max_length": max_length}


def test_configuration_and_tokens_are_ours(environment, bundle, texts, tokens):
    found = environment.run(PROGRAM, request_for(bundle.folder, bundle, texts))
    assert found["model_type"] == bundle.report.model.model_type
    assert found["hidden_size"] == bundle.report.model.embedding_dim
    assert found["pad_token_id"] == tokens.pad_token_id
    assert found["input_ids"] == [text.tolist() for text in tokens]


def test_without_the_configuration_it_fails_by_name(environment, bundle, texts, tmp_path):
    folder = copy_of(bundle.folder, tmp_path / "out", without=("config.json",))
    with pytest.raises(StepError, match="load_with_transformers") as caught:
        environment.run(PROGRAM, request_for(folder, bundle, texts))
    assert "model_type" in caught.value.why
