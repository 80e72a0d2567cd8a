"""A real bundle, what our runner makes of it, and the environments of other people's loaders."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from bundle_cases import EDGE_TEXTS, Bundle, copy_of, embed
from onnx_artifacts import Shipped, ship_all

from benchmarks.bundles import bundle_plan, bundle_threads
from benchmarks.side_env import SideEnvironment, side_environment
from exporter.deliver.report import read_report
from exporter.source.corpus import load_calibration
from exporter.source.resolve import resolve_encoder
from exporter.source.tokenizer import load_tokenizer
from exporter.steps.bundled import graph_of
from targets.contract import CompileRequest, TokenSequences
from targets.devices.local import LocalDevice

ROOT = Path(__file__).parents[2]
NUM_FEW_TEXTS = 14


@pytest.fixture(scope="session")
def openvino_environment() -> SideEnvironment:
    return side_environment("openvino")


@pytest.fixture(scope="session")
def onnxruntime_environment() -> SideEnvironment:
    return side_environment("onnxruntime")


@pytest.fixture(scope="session")
def texts() -> tuple[str, ...]:
    built_in = load_calibration(None, num_samples=40, seed=1).texts
    return (*built_in, *EDGE_TEXTS)


@pytest.fixture(scope="session")
def tokens(texts: tuple[str, ...]) -> TokenSequences:
    return load_tokenizer(resolve_encoder(None)).encode(texts)


@pytest.fixture(scope="session")
def bundle(
    tmp_path_factory: pytest.TempPathFactory, shared_cache: Path, tokens: TokenSequences
) -> Bundle:
    """What `make export` makes on this machine: the fastest artifact that keeps its promise."""
    folder = tmp_path_factory.mktemp("bundle") / "out"
    command = [sys.executable, "-m", "exporter", "export", "--target", "openvino", "--quiet"]
    done = subprocess.run(
        [*command, "-o", str(folder)],
        env=os.environ | {"EMBEDDING_EXPORTER_CACHE": str(shared_cache)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1, 3), done.stderr
    report = read_report(folder / "reports")
    plan = bundle_plan(folder, report, tokens.pad_token_id)
    embeddings = embed(plan, tokens, bundle_threads(report))
    return Bundle(folder=folder, report=report, plan=plan, embeddings=embeddings)


@pytest.fixture(scope="session")
def float_bundle(
    bundle: Bundle, tmp_path_factory: pytest.TempPathFactory, tokens: TokenSequences
) -> Bundle:
    """The same bundle with the FP32 artifact in place of the chosen one."""
    from targets.openvino.target import OpenVinoTarget

    target, hardware = OpenVinoTarget(), LocalDevice().hardware()
    threads = bundle_threads(bundle.report)
    graph = graph_of(bundle.folder, bundle.report)
    request = CompileRequest(
        graph=graph,
        recipe=target.candidates(graph, hardware)[0],
        calibration=tokens,
        hardware=hardware,
        output_dir=tmp_path_factory.mktemp("artifact"),
        num_threads=threads,
        seed=0,
    )
    artifact = target.compile(request)
    folder = copy_of(bundle.folder, tmp_path_factory.mktemp("float") / "out", without=("openvino",))
    (folder / "openvino").mkdir()
    for name, place in target.ship(artifact):
        shutil.copyfile(artifact.directory / name, folder / place)
    plan = target.run_plan(artifact, graph, tokens.pad_token_id, threads)
    embeddings = embed(plan, tokens, threads)
    return Bundle(folder=folder, report=bundle.report, plan=plan, embeddings=embeddings)


@pytest.fixture(scope="session")
def weights(minilm_dir: Path) -> Path:
    return minilm_dir / "model.safetensors"


@pytest.fixture(scope="session")
def few(texts: tuple[str, ...], tokens: TokenSequences) -> tuple[tuple[str, ...], TokenSequences]:
    """The last of the texts, awkward ones among them: they are embedded many times."""
    kept = range(len(texts) - NUM_FEW_TEXTS, len(texts))
    return texts[-NUM_FEW_TEXTS:], tokens.select(kept)


@pytest.fixture(scope="session")
def shipped(
    bundle: Bundle,
    tokens: TokenSequences,
    few: tuple[tuple[str, ...], TokenSequences],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Shipped]:
    """Every ONNX file that our targets ship, each in a bundle of its own."""
    scratch = tmp_path_factory.mktemp("shipped")
    return ship_all(bundle, scratch, calibration=tokens, tokens=few[1])
