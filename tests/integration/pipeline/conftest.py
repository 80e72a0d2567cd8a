"""The command itself in a child process, on the real model and on a tiny one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from export_command import ROOT, Ran, run_command
from tiny_models import BERT, build


@pytest.fixture(scope="session")
def real_run(tmp_path_factory: pytest.TempPathFactory, shared_cache: Path) -> Ran:
    """What `make export` does: the real model on the built-in texts."""
    folder = tmp_path_factory.mktemp("real") / "out"
    return run_command(["--target", "openvino"], folder, shared_cache, ROOT)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer BERT."""
    return build(BERT, tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_texts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Calibration and evaluation files that share nothing."""
    folder = tmp_path_factory.mktemp("texts")
    calibration, evaluation = folder / "calibration.txt", folder / "evaluation.txt"
    words = ["red", "green", "blue", "cat", "dog", "house", "tree", "river", "stone", "bird"]
    words += ["cloud", "street", "lamp"]
    lines = [
        f"{words[i % 13]} {words[(i * 5 + 2) % 13]} number {i} beside the {words[(i * 7 + 4) % 13]}"
        for i in range(900)
    ]
    calibration.write_text("\n".join(lines[:120]))
    evaluation.write_text("\n".join(lines[120:]))
    return calibration, evaluation


Export = Callable[..., Ran]


@pytest.fixture
def export_tiny(
    tiny_model: Path, tiny_texts: tuple[Path, Path], tmp_path: Path, shared_cache: Path
) -> Export:
    """Run `exporter export` on the tiny model; later flags win."""
    calibration, evaluation = tiny_texts

    def run(*arguments: str, folder: Path | None = None, cache: Path | None = None) -> Ran:
        flags = ["--model", str(tiny_model), "--calibration", str(calibration)]
        flags += ["--eval", str(evaluation), "--target", "openvino", *arguments]
        return run_command(flags, folder or tmp_path / "out", cache or shared_cache, tmp_path)

    return run
