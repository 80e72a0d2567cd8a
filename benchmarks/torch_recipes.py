"""Every recipe of target `torch` on one device: embeddings, products, latency of fixed shapes.

    python -m benchmarks.torch_recipes --device local:cuda -o benchmarks/results/torch-cuda.json

All recipes are built first and all ways of running them loaded side by side; then they take turns
in rounds, shape by shape, so that a machine's mood hits all of them. What fails is written down
with its reason. The file is written anew every time: a run that is cut off leaves what it has.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from exporter.judge import judge_precision
from exporter.source.builtin_texts import builtin_texts_file
from exporter.source.encoder import load_encoder
from exporter.source.modules import transformer_folder
from exporter.source.onnx_export import export_onnx
from exporter.source.resolve import resolve_encoder
from exporter.source.sidecar import copy_sidecar
from exporter.source.tokenizer import load_tokenizer
from exporter.steps.compilers import compilers
from targets.contract import (
    CompiledArtifact,
    CompileRequest,
    FloatArray,
    OnnxArtifact,
    Recipe,
    Runner,
    RunPlan,
    RuntimeVariant,
    SourceModel,
    TokenSequences,
    Workload,
    variants_of,
)
from targets.hardware.precisions import is_backed
from targets.registry import load_target, open_device

SCHEMA_VERSION = 1
SHAPES = ((1, 16), (1, 128), (8, 128), (32, 128))
DEFAULT = "eager"
_ROUNDS, _PASSES, _WARM_UPS = 3, 30, 10
_TEXTS = 256


@dataclass
class Row:
    """One way of running one recipe, with what is known so far."""

    recipe: str
    way: str
    reason: str = ""
    size_bytes: int | None = None
    min_cosine: float | None = None
    mean_cosine: float | None = None
    precision: str = ""
    products: dict[str, int] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    tool_versions: dict[str, str] = field(default_factory=dict)
    latency_ms: dict[str, list[float]] = field(default_factory=dict)
    """Shape → median of each round."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """What everything is made of."""

    graph: OnnxArtifact
    source: SourceModel
    tokens: TokenSequences


def main(arguments: Sequence[str] | None = None) -> None:
    """Build, run, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default=None, help="folder; the built-in model by default")
    parser.add_argument("--device", default="local")
    parser.add_argument("--recipe", action="append", help="only these; all by default")
    parser.add_argument("--ways", action="append", help="only these variants; all by default")
    parser.add_argument("--uncompiled", action="append", default=[], help="not these recipes")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--passes", type=int, default=_PASSES)
    parser.add_argument("-o", "--output", type=Path, required=True)
    measure(parser.parse_args(arguments))


def measure(asked: argparse.Namespace) -> None:
    """Measure what was asked for, and write the file as it grows."""
    began, target, device = time.monotonic(), load_target("torch"), open_device(asked.device)
    hardware = device.hardware()
    threads = asked.threads or hardware.num_cores
    with tempfile.TemporaryDirectory() as scratch:
        given = prepare(asked.model, Path(scratch))
        recipes = [
            one
            for one in target.candidates(given.graph, hardware)
            if (one.name in asked.recipe if asked.recipe else is_backed(one, hardware))
        ]
        rows: list[Row] = []
        runners: list[tuple[Row, Runner]] = []
        document = {
            "schema_version": SCHEMA_VERSION,
            "model": given.graph.model_id,
            "device": asked.device,
            "hardware": {**asdict(hardware), "features": sorted(hardware.features)},
            "fingerprint": hardware.fingerprint,
            "texts": len(given.tokens),
            "rounds": _ROUNDS,
            "passes": asked.passes,
            "rows": rows,
        }

        def write() -> None:
            document["elapsed_s"] = round(time.monotonic() - began, 1)
            plain = {**document, "rows": [asdict(row) for row in rows]}
            asked.output.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")

        built = build_all(recipes, given, Path(scratch), hardware, threads, rows)
        write()
        plans = [
            (Row(recipe=recipe.name, way=one.name, size_bytes=made.size_bytes), recipe, one)
            for recipe, made in built
            for one in ways_of(target, made, given, threads, asked.ways)
            if recipe.name not in asked.uncompiled or "compiled" not in one.name
        ]
        with ThreadPoolExecutor(max(1, min(12, threads))) as pool:

            def start(item: tuple[Row, Recipe, RuntimeVariant]) -> tuple[Row, Runner] | None:
                row, recipe, way = item
                rows.append(row)
                try:
                    runner = device.start(way.plan, threads)
                    look(runner, row, recipe, given.tokens)
                except Exception as error:  # any way may fail; the others go on
                    row.reason = " ".join(str(error).split())[:600]
                    return None
                write()
                return row, runner

            runners += [one for one in pool.map(start, plans) if one is not None]
        compare(rows)
        write()
        try:
            time_all(runners, asked.passes, write)
        finally:
            for _, runner in runners:
                runner.close()
            write()


def prepare(model: str | None, scratch: Path) -> Given:
    """Export the graph, gather what lies beside the weights, tokenize some texts."""
    spec = resolve_encoder(model, max_seq_length=None)
    graph = export_onnx(load_encoder(spec), scratch)
    copy_sidecar(spec, scratch / "sidecar")
    source = SourceModel(weights=transformer_folder(spec.directory), sidecar=scratch / "sidecar")
    with builtin_texts_file() as path:
        lines = path.read_text("utf-8").splitlines()
    texts = [str(json.loads(line)["text"]) for line in lines[:_TEXTS]]
    return Given(graph=graph, source=source, tokens=load_tokenizer(spec).encode(texts))


def build_all(
    recipes: Sequence[Recipe],
    given: Given,
    scratch: Path,
    hardware: Any,  # noqa: ANN401 - the contract's Hardware
    threads: int,
    rows: list[Row],
) -> list[tuple[Recipe, CompiledArtifact]]:
    """Build in processes of their own; what fails becomes a row with its reason."""

    def request(recipe: Recipe) -> CompileRequest:
        folder = scratch / recipe.name
        folder.mkdir()
        return CompileRequest(
            graph=given.graph,
            recipe=recipe,
            calibration=given.tokens,
            source=given.source,
            hardware=hardware,
            output_dir=folder,
            num_threads=threads,
            seed=0,
        )

    workers = min(len(recipes), threads)
    with compilers("torch", workers) as compile_, ThreadPoolExecutor(workers) as pool:

        def build(recipe: Recipe) -> tuple[Recipe, CompiledArtifact] | None:
            try:
                return recipe, compile_(request(recipe))
            except Exception as error:  # as above
                why = " ".join(str(error).split())[:600]
                rows.append(Row(recipe=recipe.name, way="build", reason=why))
                return None

        return [one for one in pool.map(build, recipes) if one is not None]


def ways_of(
    target: Any,  # noqa: ANN401 - the contract's Target
    made: CompiledArtifact,
    given: Given,
    threads: int,
    asked: Sequence[str] | None,
) -> list[RuntimeVariant]:
    """Return the target's own plan and its variants that change more than batches."""
    plan: RunPlan = target.run_plan(made, given.graph, given.tokens.pad_token_id, threads)
    own = RuntimeVariant(name=DEFAULT, plan=plan, num_threads=threads, why="the target's own plan")
    found = [one for one in variants_of(target, plan, threads) if "batch" not in one.name]
    return [own, *(one for one in found if asked is None or one.name in asked)]


_EMBEDDINGS: dict[tuple[str, str], FloatArray] = {}


def look(runner: Runner, row: Row, recipe: Recipe, tokens: TokenSequences) -> None:
    """Embed the texts and read back what one batch executed."""
    _EMBEDDINGS[row.recipe, row.way] = runner.embed(tokens)
    info = runner.info()
    row.options, row.tool_versions = dict(info.options), dict(info.tool_versions)
    try:
        executed = runner.inspect(tokens.select(range(8)))
    except Exception as error:  # as above
        row.precision = " ".join(str(error).split())[:300]
        return
    check = judge_precision(recipe, executed)
    row.precision, row.products = check.verdict, {k: int(v) for k, v in check.details.items()}


def compare(rows: Sequence[Row]) -> None:
    """Hold every row's embeddings against those of float32, eager, on the same device."""
    reference = _EMBEDDINGS.get(("float32", DEFAULT))
    if reference is None:
        return
    for row in rows:
        found = _EMBEDDINGS.get((row.recipe, row.way))
        if found is not None:
            norms = np.linalg.norm(found, axis=1) * np.linalg.norm(reference, axis=1)
            cosines = (found * reference).sum(axis=1) / norms
            row.min_cosine, row.mean_cosine = float(cosines.min()), float(cosines.mean())


def time_all(runners: Sequence[tuple[Row, Runner]], passes: int, write: Callable[[], None]) -> None:
    """Time shape by shape, in rounds; the first round of each warms up."""
    for batch, length in SHAPES:
        name = f"{batch}x{length}"
        shape = Workload(name=name, kind="shape", batch_size=batch, sequence_length=length)
        for turn in range(_ROUNDS):
            for row, runner in runners:
                if row.reason:
                    continue
                try:
                    samples = runner.time(shape, passes, _WARM_UPS if turn == 0 else 2)
                except Exception as error:  # as above
                    row.reason = f"{name}: " + " ".join(str(error).split())[:600]
                    continue
                row.latency_ms.setdefault(name, []).append(round(float(np.median(samples)), 4))
            write()


if __name__ == "__main__":
    main()
