"""The trained form for TensorRT: simulated as training saw it, fused as before training.

No GPU runs here: the graph that TensorRT is given runs in ONNX Runtime, and TensorRT for RTX
compiles it without a GPU. All that is not int8 is float16 there and was float32 in training.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from trained_form import Trained, real_source, tiny_source, train

from exporter.optimize.probe import drift
from targets.contract import CompiledArtifact, FloatArray, Recipe
from targets.errors import NotInstalledError
from targets.tensorrt.recipes import INT8
from targets.tensorrt.rtx import TensorRtRtxTarget
from targets.tensorrt.sdk import import_rtx
from targets.tensorrt.target import TensorRtTarget

pytestmark = [pytest.mark.slow]

TENSORRT, RTX = TensorRtTarget(), TensorRtRtxTarget()
HARDWARE = TENSORRT.prepared_hardware(("8.9",))
RECIPE = next(one for one in TENSORRT.candidates(None, HARDWARE) if one.name == INT8)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("tiny-trained")
    return train(tiny_source(folder), RECIPE.scheme, folder, damage=12)


@pytest.fixture(scope="module")
def minilm(minilm_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The real model; its plans hold calibrated attention too, for the recipe that wants it."""
    try:
        import_rtx()
    except NotInstalledError as error:
        pytest.skip(f"no TensorRT for RTX here: {error.hint}")
    folder = tmp_path_factory.mktemp("minilm-trained")
    source = real_source(minilm_dir, folder)
    asked = RTX.with_int8_attention(RECIPE, source.graph)
    return train(source, asked.scheme, folder, damage=2)


def simulated(
    trained: Trained, target: TensorRtTarget, plans: Path, folder: Path, recipe: Recipe = RECIPE
) -> tuple[CompiledArtifact, FloatArray]:
    """Prepare one form, and run its graph as the export without a GPU does."""
    artifact = trained.compile(target, recipe, HARDWARE, plans, folder)
    source = trained.source
    plan = target.simulation(artifact, source.graph, source.texts.pad_token_id, 1)
    return artifact, trained.run(plan)


def counts(artifact: CompiledArtifact) -> dict[tuple[str, str], int]:
    structure = RTX.structure(artifact)
    return {(row.op_type, row.dtype): row.count for row in structure.rows}


def test_the_prepared_graph_gives_what_training_saw(tiny, tmp_path):
    allowed = tiny.tolerance(0.01)
    _, after = simulated(tiny, TENSORRT, tiny.after, tmp_path / "after")
    _, before = simulated(tiny, TENSORRT, tiny.before, tmp_path / "before")
    assert drift(tiny.seen, after) < allowed
    assert drift(tiny.seen, before) > allowed


@pytest.mark.model
@pytest.mark.tensorrt_rtx
def test_the_real_model_is_fused_as_before_and_gives_what_training_saw(minilm, tmp_path):
    allowed = minilm.tolerance(0.1)
    artifact, after = simulated(minilm, RTX, minilm.after, tmp_path / "after")
    _, before = simulated(minilm, RTX, minilm.before, tmp_path / "before")
    assert drift(minilm.seen, after) < allowed
    assert drift(minilm.seen, before) > allowed
    assert counts(artifact) == {
        ("linear", "int8"): 36,
        ("gemm", "int8"): 24,  # query, key and value are merged
        ("fused attention", "float16"): 6,
        ("reformat", "int8"): 6,  # one for each attention
    }


@pytest.mark.model
@pytest.mark.tensorrt_rtx
def test_training_and_attention_in_int8_go_together(minilm, tmp_path):
    """Attention is rounded after training: it costs something, and less than no training did."""
    asked = RTX.with_int8_attention(RECIPE, minilm.source.graph)
    artifact, after = simulated(minilm, RTX, minilm.after, tmp_path / "after", asked)
    _, before = simulated(minilm, RTX, minilm.before, tmp_path / "before", asked)
    assert drift(minilm.seen, after) < 0.5 * drift(minilm.seen, before)
    assert drift(minilm.seen, after) > minilm.tolerance(0.01)
    assert counts(artifact) == {
        ("linear", "int8"): 36,
        ("gemm", "int8"): 24,
        ("fused attention", "int8"): 6,
    }
