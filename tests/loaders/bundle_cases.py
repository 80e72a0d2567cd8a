"""Copies of a bundle, each wrong in one way that a loader test must notice."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One bundle as one user loads it."""

    bundle: Path
    model_kwargs: Mapping[str, object] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        return {"bundle": str(self.bundle), "model_kwargs": dict(self.model_kwargs)}


def copy_of(bundle: Path, folder: Path, *, without: tuple[str, ...] = ()) -> Path:
    """Copy a bundle without some of its files; the rest is linked, so it costs nothing."""
    ignored = shutil.ignore_patterns(*without)
    shutil.copytree(bundle, folder, copy_function=os.link, ignore=ignored)
    return folder


def with_weights(bundle: Path, folder: Path, weights: Path, *, without: tuple[str, ...]) -> Path:
    """Copy a bundle and put the source's weights into it, so that a loader can export anew."""
    os.symlink(weights, copy_of(bundle, folder, without=without) / "model.safetensors")
    return folder


def with_other_pooling(bundle: Path, folder: Path) -> Path:
    """Copy a bundle whose pooling takes the first token instead of the mean."""
    place = copy_of(bundle, folder, without=("1_Pooling",)) / "1_Pooling"
    place.mkdir()
    settings = json.loads((bundle / "1_Pooling" / "config.json").read_text("utf-8"))
    settings |= {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}
    (place / "config.json").write_text(json.dumps(settings), "utf-8")
    return folder
