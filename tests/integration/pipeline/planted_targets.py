"""ONNX Runtime's target with one fault each: artifacts that load, run, and mean something else.

The gate must stop each of them. Registered as another vendor's distribution, so that the command
and the processes that compile know them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from targets.artifacts import artifact_file
from targets.contract import CompiledArtifact, CompileRequest
from targets.onnxruntime.target import EMBEDDING, OnnxRuntimeTarget
from targets.quantization.layers import HIDDEN_STATE
from targets.quantization.plans_file import load_prepared, save_prepared

ENTRY_POINTS = {
    "sound": "Sound",
    "wrong-pooling": "WrongPooling",
    "scrambled-rows": "ScrambledRows",
    "per-tensor-weights": "PerTensorWeights",
}


def write_distribution(folder: Path) -> Path:
    """Make the targets of this file findable from `folder` on PYTHONPATH; the folder again."""
    about = folder / "planted-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: planted\nVersion: 1.0\n")
    lines = [f"{name} = planted_targets:{kind}" for name, kind in ENTRY_POINTS.items()]
    text = "\n".join(["[embedding_exporter.targets]", *lines, ""])
    (about / "entry_points.txt").write_text(text)
    (folder / "planted_targets.py").write_bytes(Path(__file__).read_bytes())
    return folder


class Sound(OnnxRuntimeTarget):
    """Without a fault: what the others are compared with."""

    spec = replace(OnnxRuntimeTarget.spec, name="sound")

    def compile(self, request: CompileRequest) -> CompiledArtifact:
        artifact = super().compile(request)
        path = artifact.directory / artifact.files[0].path
        model = onnx.load(path)
        self.spoil(model)
        onnx.save(model, path)
        return replace(artifact, target=self.spec.name, files=(artifact_file(path),))

    def spoil(self, model: onnx.ModelProto) -> None:
        """Put the fault in."""


def _replace_embedding(model: onnx.ModelProto, nodes: list[onnx.NodeProto], old: str) -> None:
    """Rename the embedding to `old` and let `nodes` give the output instead."""
    for node in model.graph.node:
        node.output[:] = [old if name == EMBEDDING else name for name in node.output]
        node.input[:] = [old if name == EMBEDDING else name for name in node.input]
    model.graph.node.extend(nodes)


class WrongPooling(Sound):
    """The first token's state in place of the mean of all."""

    spec = replace(Sound.spec, name="wrong-pooling")

    def spoil(self, model: onnx.ModelProto) -> None:
        model.graph.initializer.append(numpy_helper.from_array(np.array(0, np.int64), "first"))
        _replace_embedding(
            model,
            [
                helper.make_node("Gather", [HIDDEN_STATE, "first"], ["cls_state"], axis=1),
                helper.make_node("LpNormalization", ["cls_state"], [EMBEDDING], axis=-1, p=2),
            ],
            "mean_pooled",
        )


class ScrambledRows(Sound):
    """Every batch's embeddings in reverse order."""

    spec = replace(Sound.spec, name="scrambled-rows")

    def spoil(self, model: onnx.ModelProto) -> None:
        ends = {"last": -1, "before_first": -(1 << 62), "rows": 0, "backwards": -1}
        model.graph.initializer.extend(
            numpy_helper.from_array(np.array([value], np.int64), name)
            for name, value in ends.items()
        )
        node = helper.make_node("Slice", ["in_order", *ends], [EMBEDDING])
        _replace_embedding(model, [node], "in_order")


class PerTensorWeights(Sound):
    """One scale for a whole weight, as quantizers do that are told nothing else."""

    spec = replace(Sound.spec, name="per-tensor-weights")

    def compile(self, request: CompileRequest) -> CompiledArtifact:
        if request.plans is None:
            return super().compile(request)
        prepared = load_prepared(request.plans)
        plans = []
        for plan in prepared.plans:
            assert plan.weight_scale is not None
            assert plan.weight_integers is not None
            axis = 1 - plan.layer.output_axis
            weight = plan.weight_integers * np.expand_dims(plan.weight_scale, axis)
            scale = np.full_like(plan.weight_scale, plan.weight_scale.max())
            rounded = np.rint(weight / np.expand_dims(scale, axis)).astype(np.int8)
            plans.append(replace(plan, weight_scale=scale, weight_integers=rounded))
        path = request.output_dir.parent / f"{request.output_dir.name}-per-tensor.npz"
        save_prepared(replace(prepared, plans=tuple(plans)), path)
        return super().compile(replace(request, plans=path))
