"""A tiny model from its folder to its graph."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from exporter.source.encoder import LoadedEncoder
from exporter.source.tokenizer import TextTokenizer
from targets.contract import OnnxArtifact, TokenSequences


@dataclass(frozen=True)
class Exported:
    """A tiny model from its folder to its graph."""

    folder: Path
    tokenizer: TextTokenizer
    tokens: TokenSequences
    encoder: LoadedEncoder
    artifact: OnnxArtifact
