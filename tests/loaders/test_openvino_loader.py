"""`SentenceTransformer(bundle, backend="openvino")` in sentence-transformers' own environment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from bundle_cases import (
    EDGE_TEXTS,
    Bundle,
    Case,
    copy_of,
    lowest_cosine,
    with_other_pooling,
    with_weights,
    without_limit,
)

from benchmarks.bundles import chosen_section
from benchmarks.side_env import SideEnvironment
from exporter.config import PolicySettings

pytestmark = [pytest.mark.network, pytest.mark.slow, pytest.mark.openvino, pytest.mark.model]

PROGRAM = Path(__file__).with_name("load_bundles.py")
MODEL_FILE = "openvino/openvino_model.xml"
Answers = Mapping[str, Mapping[str, Any]]


def shipped_names(bundle: Bundle) -> list[str]:
    return sorted(file.name for file in (bundle.folder / "openvino").glob("*.xml"))


@pytest.fixture(scope="module")
def answers(
    openvino_environment: SideEnvironment,
    bundle: Bundle,
    float_bundle: Bundle,
    texts: tuple[str, ...],
    weights: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Answers:
    """Load the bundle as it is, with its options, and wrong in several ways, in one process."""
    folder = tmp_path_factory.mktemp("cases")
    own = {"ov_config": bundle.loader_options}
    source = bundle.folder
    typo = {"file_name": "openvino_model_typo.xml"}
    cases = {
        "own options": Case(bundle=source, model_kwargs=own),
        "as it is": Case(bundle=source),
        "float32, own options": Case(
            bundle=float_bundle.folder, model_kwargs={"ov_config": float_bundle.loader_options}
        ),
        "float32, as it is": Case(bundle=float_bundle.folder),
        "no artifact": Case(bundle=copy_of(source, folder / "none", without=("openvino",))),
        "no artifact, weights": Case(
            bundle=with_weights(source, folder / "fresh", weights, without=("openvino",))
        ),
        "wrong name": Case(bundle=source, model_kwargs=typo),
        "wrong name, weights": Case(
            bundle=with_weights(source, folder / "typo", weights, without=()), model_kwargs=typo
        ),
        "other pooling": Case(
            bundle=with_other_pooling(source, folder / "pooling"), model_kwargs=own
        ),
        "no length limit": Case(
            bundle=without_limit(source, folder / "limit"),
            model_kwargs=own,
        ),
        "limit in one place": Case(
            bundle=copy_of(source, folder / "one", without=("sentence_bert_config.json",)),
            model_kwargs=own,
        ),
    }
    for name in shipped_names(bundle):
        cases[f"named {name}"] = Case(bundle=source, model_kwargs={**own, "file_name": name})
    request = {
        "backend": "openvino",
        "texts": texts,
        "cases": {name: case.to_json() for name, case in cases.items()},
    }
    found: Answers = openvino_environment.run(PROGRAM, request)
    return found


def test_the_shipped_file_is_what_is_loaded(answers, bundle):
    assert answers["own options"]["error"] is None
    assert MODEL_FILE in answers["own options"]["same_content"]
    assert MODEL_FILE in answers["as it is"]["same_content"]
    assert bundle.plan.model == bundle.folder / MODEL_FILE


def test_every_shipped_file_is_loaded_by_its_name(answers, bundle):
    for name in shipped_names(bundle):
        assert f"openvino/{name}" in answers[f"named {name}"]["same_content"]


def test_it_reproduces_the_bundle_s_embeddings(answers, bundle):
    found = answers["own options"]
    assert found["options"] == bundle.loader_options
    assert lowest_cosine(bundle.embeddings, found["embeddings"]) >= lowest_allowed(bundle)


def test_it_reproduces_them_without_options_too(answers, bundle):
    """Static int8 keeps the rest in what OpenVINO takes by itself; other recipes may not."""
    found = answers["as it is"]
    if found["options"] != bundle.loader_options:
        recipe = chosen_section(bundle.report).recipe
        assert recipe is not None
        assert recipe.quantizer != "qdq", "static int8 needs no options"
        pytest.skip(f"{recipe.name} runs under {bundle.loader_options}, not OpenVINO's own choice")
    assert lowest_cosine(bundle.embeddings, found["embeddings"]) >= lowest_allowed(bundle)


def lowest_allowed(bundle: Bundle) -> float:
    """The loader pads to any length, we to buckets: other kernels, other last digits.

    In int8 the last digits of an activation decide how it is rounded now and then.
    """
    recipe = chosen_section(bundle.report).recipe
    is_float = recipe is not None and recipe.quantizer == "none"
    return 0.9999 if is_float else PolicySettings().min_stability


def test_float32_reproduces_the_embeddings_to_the_last_digits(answers, float_bundle):
    found = answers["float32, own options"]
    assert lowest_cosine(float_bundle.embeddings, found["embeddings"]) >= 0.999999


def test_float32_without_options_stays_close(answers, float_bundle):
    """The loader leaves the precision to OpenVINO, which may take bfloat16."""
    found = answers["float32, as it is"]
    assert lowest_cosine(float_bundle.embeddings, found["embeddings"]) >= 0.999


def test_modules_limit_and_tokens_are_ours(answers, bundle, tokens):
    found = answers["as it is"]
    assert found["modules"] == ["Transformer", "Pooling", "Normalize"]
    assert found["max_seq_length"] == bundle.report.model.max_seq_length
    assert found["input_ids"] == [text.tolist() for text in tokens]


def test_a_missing_artifact_is_an_error_and_not_a_fresh_export(answers):
    assert "model.safetensors" in answers["no artifact"]["error"]
    assert "model.safetensors" in answers["wrong name"]["error"]


@pytest.mark.parametrize("case", ["no artifact, weights", "wrong name, weights"])
def test_a_silent_fresh_export_is_found_out(answers, case):
    """With weights beside it the loader exports FP32 anew; content, not paths, tells."""
    assert answers[case]["error"] is None
    assert answers[case]["same_content"] == []


def test_other_pooling_is_found_out(answers, bundle):
    found = answers["other pooling"]
    assert MODEL_FILE in found["same_content"]
    assert lowest_cosine(bundle.embeddings, found["embeddings"]) < 0.99


def test_a_lost_length_limit_is_found_out(answers, texts, tokens):
    found = answers["no length limit"]
    long = texts.index(EDGE_TEXTS[1])
    assert len(found["input_ids"][long]) > len(tokens[long])
    kept = answers["limit in one place"]
    assert len(kept["input_ids"][long]) == len(tokens[long])
