"""Every ONNX file that our targets ship, each built from the bundle's own graph and put into it.

Artifacts are made for CPUs of the hardware table, so that all names appear on any machine.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
from bundle_cases import Bundle, copy_of, embed
from contract.tiny_plans import calibrated_table

from exporter.steps.bundled import graph_of
from targets.contract import (
    ALONE,
    CompiledArtifact,
    CompileRequest,
    FloatArray,
    OnnxArtifact,
    QdqScheme,
    Recipe,
    Target,
    TokenSequences,
)
from targets.hardware.profiles import cpu_profile
from targets.hashing import sha256_file
from targets.quantization.layers import read_layers
from targets.quantization.plans_file import Prepared, save_prepared
from targets.quantization.prepare import Method, Preparation
from targets.registry import load_target

NAMES = {
    "onnx/model_optimized.onnx",
    "onnx/model_quantized.onnx",
    "onnx/model_quint8_avx2.onnx",
    "onnx/model_qint8_avx512.onnx",
    "onnx/model_qint8_avx512_vnni.onnx",
    "onnx/model_q8.onnx",
    "onnx/model_q4.onnx",
    "onnx/model_qint8_arm64.onnx",
    "onnx/model_qint4_arm64.onnx",
}
"""All that users may be told to load, besides `onnx/model.onnx`."""
BUILDS = (
    ("onnxruntime", "haswell", "int8-dynamic"),
    ("onnxruntime", "skylake-server", "int8-dynamic"),
    ("onnxruntime", "icelake-server", "float32"),
    ("onnxruntime", "icelake-server", "int8-static"),
    ("onnxruntime", "icelake-server", "int8-weights"),
    ("onnxruntime", "icelake-server", "int4-weights"),
    ("onnxruntime-mobile", "neoverse-n1", "int8-static"),
    ("onnxruntime-mobile", "neoverse-n1", "int4-weights"),
)
"""Target, CPU, recipe: the fewest that make all names."""
NUM_THREADS = 2
# Texts alone and without padding: dynamic int8 depends on its batch.
_AS_A_LOADER_OF_ONE = replace(ALONE, length_multiple=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """A bundle with one more artifact, and what our runner makes of the texts with it.

    Args:
        places: the ONNX files that were added, relative to the bundle.
        sha256: of each of them, which are one file under several names.
    """

    folder: Path
    recipe: Recipe
    places: tuple[str, ...]
    sha256: str
    embeddings: FloatArray


def ship_all(
    bundle: Bundle, scratch: Path, *, calibration: TokenSequences, tokens: TokenSequences
) -> dict[str, Shipped]:
    """Build and add every artifact: a name for each build → bundle."""
    graph = graph_of(bundle.folder, bundle.report)
    plans = _write_plans(scratch / "plans.npz", graph, calibration)
    found = {}
    for target_name, cpu, recipe_name in BUILDS:
        name = f"{target_name} {cpu} {recipe_name}"
        folder = scratch / name.replace(" ", "-")
        folder.mkdir()
        target = load_target(target_name)
        hardware = cpu_profile(cpu).hardware(num_cores=NUM_THREADS, memory_bytes=1 << 33)
        recipes = {recipe.name: recipe for recipe in target.candidates(graph, hardware)}
        request = CompileRequest(
            graph=graph,
            recipe=recipes[recipe_name],
            calibration=calibration,
            plans=plans,
            hardware=hardware,
            output_dir=folder / "artifact",
            num_threads=NUM_THREADS,
            seed=0,
        )
        request.output_dir.mkdir()
        artifact = target.compile(request)
        found[name] = _ship(target, artifact, graph, bundle.folder, folder / "out", tokens)
    return found


def _ship(
    target: Target,
    artifact: CompiledArtifact,
    graph: OnnxArtifact,
    bundle: Path,
    folder: Path,
    tokens: TokenSequences,
) -> Shipped:
    copy_of(bundle, folder)
    placed = list(_placed(target, artifact, folder))
    (sha256,) = {sha256_file(folder / place) for place in placed}
    plan = target.run_plan(artifact, graph, tokens.pad_token_id, NUM_THREADS)
    return Shipped(
        folder=folder,
        recipe=artifact.recipe,
        places=tuple(placed),
        sha256=sha256,
        embeddings=embed(plan, tokens, NUM_THREADS, _AS_A_LOADER_OF_ONE),
    )


def _placed(target: Target, artifact: CompiledArtifact, folder: Path) -> Iterator[str]:
    """Copy all files to their places; name the ONNX files among them."""
    for source, place in target.ship(artifact):
        to = folder / place
        assert not to.exists(), f"{place} is there already, and a link to the real bundle's"
        to.parent.mkdir(exist_ok=True)
        shutil.copyfile(artifact.directory / source, to)
        if place.endswith(".onnx"):
            yield place


def _write_plans(path: Path, graph: OnnxArtifact, tokens: TokenSequences) -> Path:
    """Int8 forms of all layers in the plainest way: what is proven here is not their quality."""
    model = onnx.load(graph.path)
    table = calibrated_table(graph, tokens, gram=False)
    scheme = QdqScheme()
    method = Method(
        integers=scheme.integers, symmetric=scheme.symmetric, smooth=False, correct=False
    )
    plans = Preparation(model, read_layers(model), table).plans(method)
    save_prepared(Prepared(plans=plans), path)
    return path
