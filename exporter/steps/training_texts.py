"""Texts of quantization-aware training as tokens, with their classes where they have any."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from exporter.config import Settings
from exporter.deliver.codec import dump_json, load_json
from exporter.values import TextLabels, TextsSummary
from targets.contract import TokenSequences
from targets.hashing import sha256_json

_TOKENS, _SUMMARY, _LABELS = "training.npz", "training.json", "training_labels.npz"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingTexts:
    """What is trained on.

    Args:
        tokens: the texts.
        summary: as the report names them.
        labels: one for each text; None: none were asked for.
    """

    tokens: TokenSequences
    summary: TextsSummary
    labels: TextLabels | None = None

    @property
    def sha256(self) -> str:
        """Hash of the tokens and of their texts' classes."""
        if self.labels is None:
            return self.tokens.sha256
        return sha256_json([self.tokens.sha256, self.labels.names, self.labels.of_text.tolist()])


def training_source(settings: Settings) -> str | None:
    """Return the file of the training texts; None: the built-in calibration texts."""
    return settings.calibration if settings.training is None else settings.training


def save_training(texts: TrainingTexts, folder: Path) -> None:
    """Write training texts into a folder."""
    texts.tokens.save(folder / _TOKENS)
    (folder / _SUMMARY).write_bytes(dump_json(texts.summary))
    if texts.labels is not None:
        names = np.array(texts.labels.names, dtype=np.str_)
        np.savez(folder / _LABELS, names=names, of_text=texts.labels.of_text)


def load_training(folder: Path) -> TrainingTexts | None:
    """Read what `save_training` wrote, if it did."""
    if not (folder / _TOKENS).is_file():
        return None
    return TrainingTexts(
        tokens=TokenSequences.load(folder / _TOKENS),
        summary=load_json(TextsSummary, (folder / _SUMMARY).read_bytes()),
        labels=_load_labels(folder / _LABELS),
    )


def _load_labels(path: Path) -> TextLabels | None:
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        names = tuple(str(name) for name in arrays["names"])
        return TextLabels(names=names, of_text=arrays["of_text"])
