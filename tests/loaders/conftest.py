"""A real bundle, what our runner makes of it, and the environments of other people's loaders."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from benchmarks.bundles import bundle_plan, chosen_section, graph_of
from benchmarks.side_env import SideEnvironment, side_environment
from bundle_cases import copy_of
from exporter.deliver.report import Report, read_report
from exporter.source.corpus import load_calibration
from exporter.source.resolve import resolve_encoder
from exporter.source.tokenizer import load_tokenizer
from targets.contract import CompileRequest, FloatArray, RunPlan, TokenSequences
from targets.devices.local import LocalDevice

ROOT = Path(__file__).parents[2]
THREADS = 2
EDGE_TEXTS = ("", "word " * 600, "naïve café — 東京 🚀")
CHANGES_EMBEDDINGS = ("INFERENCE_PRECISION_HINT", "DYNAMIC_QUANTIZATION_GROUP_SIZE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A bundle, how our runner runs it, and what it makes of the texts."""

    folder: Path
    report: Report
    plan: RunPlan
    embeddings: FloatArray

    @property
    def loader_options(self) -> dict[str, str]:
        """The options that change embeddings; the rest of the plan's is about threads."""
        return {name: self.plan.options[name] for name in CHANGES_EMBEDDINGS}


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
    assert chosen_section(report).recipe is not None
    plan = bundle_plan(folder, report, tokens.pad_token_id, THREADS)
    return Bundle(folder=folder, report=report, plan=plan, embeddings=embed(plan, tokens))


@pytest.fixture(scope="session")
def float_bundle(
    bundle: Bundle, tmp_path_factory: pytest.TempPathFactory, tokens: TokenSequences
) -> Bundle:
    """The same bundle with the FP32 artifact in place of the chosen one."""
    from targets.openvino.target import OpenVinoTarget

    target, hardware = OpenVinoTarget(), LocalDevice().hardware()
    graph = graph_of(bundle.folder, bundle.report)
    request = CompileRequest(
        graph=graph,
        recipe=target.candidates(graph, hardware)[0],
        calibration=tokens,
        hardware=hardware,
        output_dir=tmp_path_factory.mktemp("artifact"),
        num_threads=THREADS,
        seed=0,
    )
    artifact = target.compile(request)
    folder = copy_of(bundle.folder, tmp_path_factory.mktemp("float") / "out", without=("openvino",))
    (folder / "openvino").mkdir()
    for name, place in target.ship(artifact):
        shutil.copyfile(artifact.directory / name, folder / place)
    plan = target.run_plan(artifact, graph, tokens.pad_token_id, THREADS)
    return Bundle(folder=folder, report=bundle.report, plan=plan, embeddings=embed(plan, tokens))


def embed(plan: RunPlan, tokens: TokenSequences) -> FloatArray:
    """Embed with our runner under a plan's own options."""
    with LocalDevice().start(plan, THREADS) as runner:
        return runner.embed(tokens)


@pytest.fixture(scope="session")
def weights(minilm_dir: Path) -> Path:
    return minilm_dir / "model.safetensors"


def lowest_cosine(ours: FloatArray, theirs: list[list[float]]) -> float:
    """The worst text; both sides have rows of length one."""
    other = np.asarray(theirs, np.float64)
    assert np.allclose(np.linalg.norm(other, axis=1), 1.0, atol=1e-4)
    return float(np.einsum("ij,ij->i", ours.astype(np.float64), other).min())
