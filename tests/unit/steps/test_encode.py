"""Where `encode` runs an artifact."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from exporter.steps.encode import _here


@pytest.mark.parametrize(
    ("verified_on", "runs_on"),
    [
        ("local:cuda", "local:cuda"),
        ("local", "local"),
        ("local:avx2", "local"),
        ("ssh://user@host", "local"),
        ("emulated:neoverse-n1", "local"),
    ],
)
def test_an_artifact_for_the_gpu_runs_there_and_others_on_the_cpu(verified_on, runs_on):
    assert _here(SimpleNamespace(device=verified_on)) == runs_on
