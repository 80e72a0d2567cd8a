"""What the conformance suite works with: the target under test, machines, a tiny encoder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

from tiny_graph import PAD_ID, TinyGraph, make_tokens, make_weights
from tiny_plans import write_plans
from tiny_source import write_tiny_source

from targets.contract import (
    CompiledArtifact,
    CompileRequest,
    Hardware,
    OnnxArtifact,
    QdqScheme,
    Recipe,
    RunPlan,
    SourceModel,
    Target,
    TokenSequences,
)

ROOT = Path(__file__).parents[2]
NUM_THREADS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The target under test.

    Args:
        entry_point: "module:class", as it is registered.
        sdk: packages that its spec and its candidates must do without.
        adapter_packages: what its adapter may import besides numpy and the standard library.
        search_path: folders to put on a child's path, where the module is not installed.
        min_cosine: what every recipe's embeddings of the tiny encoder keep against FP32.
        not_reproducible: files that the vendor's compiler writes otherwise every time.
    """

    entry_point: str
    sdk: tuple[str, ...]
    adapter_packages: frozenset[str]
    search_path: tuple[str, ...] = ()
    min_cosine: float = 0.99
    not_reproducible: frozenset[str] = frozenset()

    def make(self) -> Target:
        """Import the class and make an instance."""
        module, _, name = self.entry_point.partition(":")
        target: Target = getattr(__import__(module, fromlist=[name]), name)()
        return target


@dataclass(slots=True, kw_only=True)
class Workshop:
    """The tiny encoder, and artifacts built from it, each recipe once."""

    folder: Path
    graph: TinyGraph
    hardware: Hardware
    tokens: TokenSequences = field(default_factory=make_tokens)
    _built: dict[str, CompiledArtifact] = field(default_factory=dict)
    _plans: dict[tuple[str, QdqScheme], Path] = field(default_factory=dict)
    _sources: dict[str, SourceModel] = field(default_factory=dict)

    def recipes(self, target: Target) -> list[Recipe]:
        return list(target.candidates(self.graph.artifact, self.hardware))

    def distinct(self, target: Target) -> list[Recipe]:
        """One recipe of each kind: quantizer and precision."""
        kinds = {(r.quantizer, r.precision): r for r in reversed(self.recipes(target))}
        return list(kinds.values())

    def built(self, target: Target, recipe: Recipe) -> CompiledArtifact:
        if recipe.name not in self._built:
            self._built[recipe.name] = target.compile(self.request(recipe, recipe.name))
        return self._built[recipe.name]

    def request(
        self, recipe: Recipe, folder: str, graph: OnnxArtifact | None = None
    ) -> CompileRequest:
        output = self.folder / folder
        output.mkdir(parents=True)
        graph = graph or self.graph.artifact
        return CompileRequest(
            graph=graph,
            recipe=recipe,
            calibration=self.tokens,
            plans=self.plans(recipe, graph),
            source=self.source(graph),
            hardware=self.hardware,
            output_dir=output,
            num_threads=NUM_THREADS,
            seed=0,
        )

    def plans(self, recipe: Recipe, graph: OnnxArtifact) -> Path | None:
        """The file of layers' int8 forms that a recipe is built from; made once."""
        if recipe.quantizer != "qdq":
            return None
        assert recipe.scheme is not None, f"{recipe.name} does not say how integers are meant"
        key = (graph.sha256, recipe.scheme)
        if key not in self._plans:
            path = self.folder / f"plans-{len(self._plans)}.npz"
            self._plans[key] = write_plans(path, graph, self.tokens, recipe.scheme)
        return self._plans[key]

    def source(self, graph: OnnxArtifact) -> SourceModel:
        """The PyTorch model of a tiny graph, whose name tells its weights; written once."""
        if graph.model_id not in self._sources:
            folder = self.folder / f"source-{graph.model_id}"
            weights = make_weights(int(graph.model_id.removeprefix("tiny-")))
            self._sources[graph.model_id] = write_tiny_source(folder, weights)
        return self._sources[graph.model_id]

    def moved_graph(self) -> OnnxArtifact:
        """The same graph in another folder."""
        folder = self.folder / "moved"
        folder.mkdir(exist_ok=True)
        path = Path(shutil.copy(self.graph.artifact.path, folder))
        return replace(self.graph.artifact, path=path)

    def plan(self, target: Target, artifact: CompiledArtifact) -> RunPlan:
        return target.run_plan(artifact, self.graph.artifact, PAD_ID, NUM_THREADS)


def make_hardware(architecture: str, *features: str) -> Hardware:
    return Hardware(
        architecture=architecture,
        vendor="test",
        model_name="test",
        microarchitecture=architecture,
        features=frozenset(features),
        num_cores=4,
        memory_bytes=8 << 30,
    )


MACHINES = {
    "no features": make_hardware("x86_64"),
    "AVX2": make_hardware("x86_64", "avx2", "fma"),
    "AVX-VNNI": make_hardware("x86_64", "avx2", "avx_vnni"),
    "AVX512-VNNI": make_hardware("x86_64", "avx2", "avx512f", "avx512_vnni"),
    "AVX512-BF16": make_hardware("x86_64", "avx512f", "avx512_vnni", "avx512_bf16"),
    "AMX": make_hardware("x86_64", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8"),
    "Cortex-A72": make_hardware("aarch64", "asimd"),
    "Neoverse N1": make_hardware("aarch64", "asimd", "asimdhp", "fphp", "asimddp"),
    "Neoverse V2": make_hardware("aarch64", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve2"),
}


_CHILD = """
import importlib, json, sys
blocked = {sdk!r}
sys.modules.update(dict.fromkeys(blocked))
heavy = {{'torch', 'transformers', 'onnx', 'onnxruntime', *blocked}}
module, _, name = {entry_point!r}.partition(':')
target = getattr(importlib.import_module(module), name)()
heavy -= {{name for name in blocked if sys.modules.get(name) is None}}
{body}
"""


def in_child_without_sdk(subject: Subject, body: str) -> dict[str, object]:
    """Run a few lines where importing any of the SDK's packages fails."""
    program = _CHILD.format(sdk=subject.sdk, entry_point=subject.entry_point, body=body)
    path = os.pathsep.join((str(ROOT), *subject.search_path))
    answer = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    result: dict[str, object] = json.loads(answer.stdout)
    return result
