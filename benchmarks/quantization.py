"""`python -m benchmarks.quantization --eval FOLDER --texts FILE`: the engine in figures.

Four measurements, each beside what a peer does: memory and time of the calibration pass, static
int8 on the ONNX graph, and OpenVINO int8 held to a CPU with VNNI and nothing newer. Everything is
saved in `benchmarks/results/quantization.json`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx

from benchmarks.int8_contest import Contestant, Rated, rate_onnx, rate_openvino
from benchmarks.process_tree import Watched, watch
from exporter.config import load_settings
from exporter.deliver.cache import CACHE_VARIABLE
from exporter.deliver.codec import dump_json
from exporter.pipeline import open_workspace
from exporter.progress import SilentReporter
from exporter.source.resolve import resolve_encoder
from exporter.source.tokenizer import load_tokenizer
from exporter.steps.calibration import STAGE
from exporter.steps.source import Source
from exporter.steps.texts import prepare_texts
from exporter.steps.workspace import tool_versions
from exporter.values import EncoderSpec
from targets.contract import Hardware, OnnxArtifact, TokenSequences
from targets.devices.local import LocalDevice
from targets.errors import StepError

RESULTS = Path(__file__).with_name("results")
_TOOLS = ("embedding-exporter", "onnxruntime", "openvino", "nncf", "numpy")
_PASS_SIZES = (100, 1000, 10000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One `exporter calibrate` over so many texts, as a process of its own."""

    num_texts: int
    cost: Watched


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """Time over the same 1,000 texts, seconds, each alone on the machine.

    Args:
        pass_s: our pass, with everything that calibrators, smoothing and correction need.
        prepare_s: int8 forms of all layers by every calibrator, smoothed and corrected.
        nncf_s: `nncf.quantize` with its defaults for transformers.
    """

    num_texts: int
    num_tokens: int
    pass_s: float
    prepare_s: float
    nncf_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """Everything that was measured."""

    schema_version: int = 1
    created_utc: str
    command: str
    hardware: Hardware
    tool_versions: Mapping[str, str]
    passes: tuple[Pass, ...]
    timed: Timed
    onnx: tuple[Rated, ...]
    openvino: tuple[Rated, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quantization", description=__doc__)
    parser.add_argument("--eval", required=True, help="collection that artifacts are judged on")
    parser.add_argument(
        "--texts", required=True, help="file with at least 10,000 texts, JSON lines"
    )
    parser.add_argument("--only", choices=["pass", "time", "onnx", "openvino"], action="append")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "quantization.json")
    given = parser.parse_args(arguments)
    parts = given.only or ["pass", "time", "onnx", "openvino"]
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        document = _measure(parts, given.eval, Path(given.texts), Path(folder))
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_bytes(dump_json(document, indent=1) + b"\n")
    print(f"saved {given.output}")
    return 0


def _measure(parts: Sequence[str], evaluation: str, texts: Path, folder: Path) -> Document:
    passes = tuple(_passes(texts, folder)) if "pass" in parts else ()
    flags = {"target": ("openvino",), "eval": evaluation, "cache": folder / "cache"}
    settings = load_settings(None, flags)
    with open_workspace(settings, SilentReporter()) as work:
        spec = resolve_encoder(None)
        prepared = prepare_texts(work, spec)
        source = Source(work, spec)
        graph = source.graph(prepared.calibration).artifact
        many = _tokens(spec, texts, 1000)
        timed = _time(graph, spec, many) if "time" in parts else _NOTHING
        contestant = Contestant(
            work=work,
            spec=spec,
            graph=graph,
            texts=prepared,
            reference=source.reference(prepared.test),
        )
        on_onnx = rate_onnx(contestant) if "onnx" in parts else ()
        on_openvino = rate_openvino(contestant) if "openvino" in parts else ()
    return Document(
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        command="python -m benchmarks.quantization",
        hardware=LocalDevice().hardware(),
        tool_versions=tool_versions(_TOOLS),
        passes=passes,
        timed=timed,
        onnx=on_onnx,
        openvino=on_openvino,
    )


_NOTHING = Timed(num_texts=0, num_tokens=0, pass_s=0.0, prepare_s=0.0, nncf_s=0.0)


def _passes(texts: Path, folder: Path) -> Iterator[Pass]:
    """Run the command over more and more texts, each time with the graph already exported.

    A first run exports the graph and proves it on these texts, with PyTorch in memory; then its
    table is taken away, and the second run has nothing to do but the pass.
    """
    cache = folder / "pass-cache"
    environment = os.environ | {CACHE_VARIABLE: str(cache)}
    for size in _PASS_SIZES:
        command = [sys.executable, "-m", "exporter", "calibrate", "--quiet"]
        command += ["--calibration", str(texts), "--num-samples", str(size)]
        command += ["-o", str(folder / f"{size}.npz")]
        _run(command, environment, folder)
        shutil.rmtree(cache / STAGE)
        cost = _run(command, environment, folder)
        print(f"pass over {size} texts: {cost.wall_s:.1f} s, {cost.peak_rss_bytes / 1e6:.0f} MB")
        yield Pass(num_texts=size, cost=cost)


def _run(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> Watched:
    cost = watch(list(command), environment, folder / "stderr.txt")
    if cost.exit_code:
        raise StepError("exporter calibrate failed", why=(folder / "stderr.txt").read_text())
    return cost


def _tokens(spec: EncoderSpec, texts: Path, number: int) -> TokenSequences:
    from exporter.source.corpus import load_calibration

    return load_tokenizer(spec).encode(
        load_calibration(str(texts), num_samples=number, seed=0).texts
    )


def _time(graph: OnnxArtifact, spec: EncoderSpec, tokens: TokenSequences) -> Timed:
    from exporter.optimize.calibrate import Corpus, PassSettings, calibrate
    from targets.contract import CALIBRATORS
    from targets.openvino.ir import read_graph
    from targets.openvino.quantize import calibration_batches
    from targets.openvino.sdk import import_nncf, quiet
    from targets.quantization.layers import read_layers
    from targets.quantization.prepare import Method, Preparation

    corpus = Corpus(
        texts=tokens,
        pad_token_id=tokens.pad_token_id,
        tokenizer_sha256=spec.tokenizer_sha256,
        sha256=tokens.sha256,
        num_texts=len(tokens),
    )
    started = time.perf_counter()
    table = calibrate(graph, corpus, PassSettings(gram=True, num_threads=None))
    pass_s = time.perf_counter() - started

    started = time.perf_counter()
    model = onnx.load(graph.path)
    preparation = Preparation(model, read_layers(model), table)
    for calibrator in CALIBRATORS:
        if calibrator != "auto":
            preparation.plans(Method(calibrator=calibrator, smooth=False, correct=False))
    preparation.plans(Method())
    prepare_s = time.perf_counter() - started

    nncf = import_nncf()
    names = [tensor.name for tensor in graph.inputs]
    # One text at a time, as NNCF's own examples feed it: its statistics know no padding.
    singles = [
        b for i in range(len(tokens)) for b in calibration_batches(tokens.select([i]), names)
    ]
    started = time.perf_counter()
    with quiet():
        nncf.quantize(
            read_graph(graph.path),
            nncf.Dataset(singles),
            subset_size=len(singles),
            model_type=nncf.ModelType.TRANSFORMER,
        )
    nncf_s = time.perf_counter() - started
    print(f"1,000 texts: pass {pass_s:.1f} s, forms {prepare_s:.1f} s, NNCF {nncf_s:.1f} s")
    return Timed(
        num_texts=len(tokens),
        num_tokens=int(np.sum(tokens.lengths)),
        pass_s=pass_s,
        prepare_s=prepare_s,
        nncf_s=nncf_s,
    )


if __name__ == "__main__":
    sys.exit(main())
