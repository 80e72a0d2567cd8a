"""Tiny models and their exports, each built once for the whole session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from exported_model import Exported
from tiny_models import BERT, FAMILIES, TEXTS, Family, build

from exporter.source.encoder import load_encoder
from exporter.source.onnx_export import export_onnx
from exporter.source.resolve import resolve_encoder
from exporter.source.tokenizer import load_tokenizer


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Build a tiny model in a folder of its own."""

    def make(family: Family = BERT, **options: Any) -> Path:
        return build(family, tmp_path_factory.mktemp(family.name), **options)

    return make


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Exported]:
    """Take a model folder all the way to its graph."""

    def run(folder: Path) -> Exported:
        spec = resolve_encoder(str(folder))
        tokenizer = load_tokenizer(spec)
        encoder = load_encoder(spec)
        return Exported(
            folder=folder,
            tokenizer=tokenizer,
            tokens=tokenizer.encode(TEXTS),
            encoder=encoder,
            artifact=export_onnx(encoder, tmp_path_factory.mktemp("graph")),
        )

    return run


@pytest.fixture(scope="session", params=FAMILIES, ids=lambda family: family.name)
def family(request: pytest.FixtureRequest) -> Family:
    """One family after the other."""
    found: Family = request.param
    return found


@pytest.fixture(scope="session")
def export_family(
    make_model: Callable[..., Path], export: Callable[[Path], Exported]
) -> Callable[[Family], Exported]:
    """Export a family's tiny model, once however many tests ask for it."""
    done: dict[str, Exported] = {}

    def run(family: Family) -> Exported:
        if family.name not in done:
            done[family.name] = export(make_model(family))
        return done[family.name]

    return run


@pytest.fixture(scope="session")
def exported(family: Family, export_family: Callable[[Family], Exported]) -> Exported:
    """The family's tiny model, exported."""
    return export_family(family)


@pytest.fixture(scope="session")
def bert(export_family: Callable[[Family], Exported]) -> Exported:
    """The tiny BERT, exported, for tests that need any one model."""
    return export_family(BERT)
