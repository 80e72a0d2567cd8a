"""A bundle with what our runner makes of it, and copies that are wrong in one way each."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from exporter.deliver.report import Report
from targets.contract import Batching, FloatArray, RunPlan, TokenSequences
from targets.devices.local import LocalDevice

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


def embed(
    plan: RunPlan, tokens: TokenSequences, num_threads: int, batching: Batching | None = None
) -> FloatArray:
    """Embed with our runner under a plan's own options."""
    with LocalDevice().start(plan, num_threads) as runner:
        return runner.embed(tokens, batching or Batching())


def lowest_cosine(ours: FloatArray, theirs: list[list[float]]) -> float:
    """The worst text; both sides have rows of length one."""
    other = np.asarray(theirs, np.float64)
    assert np.allclose(np.linalg.norm(other, axis=1), 1.0, atol=1e-4)
    return float(np.einsum("ij,ij->i", ours.astype(np.float64), other).min())


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One bundle as one user loads it.

    `batch_size` is that of `encode`; the loader's own is 32.
    """

    bundle: Path
    model_kwargs: Mapping[str, object] = field(default_factory=dict)
    batch_size: int = 32

    def to_json(self) -> dict[str, object]:
        return {
            "bundle": str(self.bundle),
            "model_kwargs": dict(self.model_kwargs),
            "batch_size": self.batch_size,
        }


def copy_of(bundle: Path, folder: Path, *, without: tuple[str, ...] = ()) -> Path:
    """Copy a bundle without some of its files; the rest is linked, so it costs nothing."""
    ignored = shutil.ignore_patterns(*without)
    shutil.copytree(bundle, folder, copy_function=os.link, ignore=ignored)
    return folder


def without_limit(bundle: Path, folder: Path) -> Path:
    """Copy a bundle that says nowhere where texts are cut."""
    copy_of(bundle, folder, without=("sentence_bert_config.json", "tokenizer_config.json"))
    settings = json.loads((bundle / "tokenizer_config.json").read_text("utf-8"))
    del settings["model_max_length"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    return folder


def with_weights(bundle: Path, folder: Path, weights: Path, *, without: tuple[str, ...]) -> Path:
    """Copy a bundle and put the source's weights into it, so that a loader can export anew."""
    (copy_of(bundle, folder, without=without) / "model.safetensors").symlink_to(weights)
    return folder


def with_other_pooling(bundle: Path, folder: Path) -> Path:
    """Copy a bundle whose pooling takes the first token instead of the mean."""
    place = copy_of(bundle, folder, without=("1_Pooling",)) / "1_Pooling"
    place.mkdir()
    settings = json.loads((bundle / "1_Pooling" / "config.json").read_text("utf-8"))
    settings |= {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}
    (place / "config.json").write_text(json.dumps(settings), "utf-8")
    return folder
