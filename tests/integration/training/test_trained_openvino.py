"""The trained form in ONNX Runtime and OpenVINO gives the embeddings that training saw."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from trained_form import Trained, real_source, tiny_source, train

from exporter.optimize.probe import drift
from targets.contract import FloatArray
from targets.openvino.recipes import recipes_for
from targets.openvino.sdk import is_installed
from targets.openvino.target import OpenVinoTarget
from targets.registry import open_device

pytestmark = [pytest.mark.openvino, pytest.mark.slow]
if not is_installed("openvino"):
    pytest.skip("pip install 'embedding-exporter[openvino]'", allow_module_level=True)

LOCAL = open_device("local").hardware()
# what is not int8 stays float32, as it was in training
HARDWARE = replace(LOCAL, features=LOCAL.features - {"amx_bf16", "avx512_bf16", "asimdhp", "fphp"})
RECIPE = next(one for one in recipes_for(HARDWARE) if one.name == "int8-static")
TARGET = OpenVinoTarget()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("tiny-trained")
    return train(tiny_source(folder), RECIPE.scheme, folder, damage=12)


@pytest.fixture(scope="module")
def minilm(minilm_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("minilm-trained")
    return train(real_source(minilm_dir, folder), RECIPE.scheme, folder, damage=2)


def in_openvino(trained: Trained, plans: Path, folder: Path) -> FloatArray:
    artifact = trained.compile(TARGET, RECIPE, HARDWARE, plans, folder)
    source = trained.source
    return trained.run(TARGET.run_plan(artifact, source.graph, source.texts.pad_token_id, 1))


def require_agreement(trained: Trained, share: float, folder: Path) -> None:
    """Hold both runtimes against the student; what it started from must be told apart."""
    allowed = trained.tolerance(share)
    assert drift(trained.seen, trained.in_graph(trained.after)) < allowed
    assert drift(trained.seen, trained.in_graph(trained.before)) > allowed
    assert drift(trained.seen, in_openvino(trained, trained.after, folder / "after")) < allowed
    assert drift(trained.seen, in_openvino(trained, trained.before, folder / "before")) > allowed


def test_both_runtimes_give_what_training_saw(tiny, tmp_path):
    require_agreement(tiny, 0.01, tmp_path)


@pytest.mark.model
def test_both_runtimes_give_what_training_saw_of_the_real_model(minilm, tmp_path):
    require_agreement(minilm, 0.1, tmp_path)


def test_biases_are_trained_too_and_matter(tiny, tmp_path):
    """Integers of the trained form with the old biases are another model."""
    from targets.quantization.plans_file import load_prepared, save_prepared

    old, new = (load_prepared(path) for path in (tiny.before, tiny.after))
    mixed = tuple(
        replace(one, bias=other.bias) for one, other in zip(new.plans, old.plans, strict=True)
    )
    save_prepared(replace(new, plans=mixed), tmp_path / "mixed.npz")
    rows = in_openvino(tiny, tmp_path / "mixed.npz", tmp_path / "mixed")
    assert drift(tiny.seen, rows) > tiny.tolerance(0.01)
