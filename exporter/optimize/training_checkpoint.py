"""A training in a file, from which it goes on as if it had never stopped."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from exporter.optimize.training import Training, TrainingState
from exporter.values import CurvePoint
from targets.contract import FloatArray
from targets.errors import StorageError

VERSION = 1
_VALUE, _BEST = "value.", "best."
_MOMENTS = ("exp_avg", "exp_avg_sq")
_ABOUT = "about"


def save_checkpoint(training: Training, path: Path, identity: str) -> None:
    """Write a training as safetensors; an earlier file is replaced whole or not at all.

    Args:
        training: right after a look at the held-out texts.
        path: its folder exists.
        identity: hash of everything that the training was started with.

    Raises:
        StorageError: it cannot be written.
    """
    from safetensors.numpy import save_file

    state = training.state
    arrays: dict[str, FloatArray] = {f"{_BEST}{name}": one for name, one in state.best.items()}
    updates = 0.0
    for name, parameter in training.student.parameters():
        arrays[f"{_VALUE}{name}"] = parameter.detach().numpy()
        stored = training.optimizer.state.get(parameter, {})
        for moment in _MOMENTS if stored else ():
            arrays[f"{moment}.{name}"] = stored[moment].numpy()
        updates = float(stored["step"]) if stored else updates
    about = {
        "version": VERSION,
        "identity": identity,
        "step": state.step,
        "stale": state.stale,
        "updates": updates,
        "curve": [asdict(point) for point in state.curve],
    }
    aside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        save_file(arrays, aside, metadata={_ABOUT: json.dumps(about)})
        aside.replace(path)
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written",
            why=error.strerror or str(error),
            hint="make room there; the training so far is in the checkpoint before",
        ) from error
    finally:
        aside.unlink(missing_ok=True)


def load_checkpoint(training: Training, path: Path, identity: str) -> bool:
    """Take up a training where a file left it.

    Args:
        training: just made; it is not changed where the file cannot be taken up.
        path: from `save_checkpoint`.
        identity: what this training is started with.

    Returns:
        Whether there was a file.

    Raises:
        StorageError: the file is damaged, or of another model, recipe, schedule or other texts.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return False
    try:
        with safe_open(path, framework="np") as file:
            about = json.loads((file.metadata() or {})[_ABOUT])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        _require_ours(about, path, identity)
        state = _state(about, arrays)
        values = {name: arrays[f"{_VALUE}{name}"] for name, _ in training.student.parameters()}
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"{path} is not a checkpoint of a training",
            why=str(error),
            hint="remove it: the training then starts from its beginning",
        ) from error
    with torch.no_grad():
        for name, parameter in training.student.parameters():
            parameter.copy_(torch.from_numpy(values[name]))
            if about["updates"]:
                training.optimizer.state[parameter] = {
                    "step": torch.tensor(about["updates"]),
                    **{one: torch.from_numpy(arrays[f"{one}.{name}"]) for one in _MOMENTS},
                }
    training.state = state
    return True


def _require_ours(about: dict[str, Any], path: Path, identity: str) -> None:
    if about["version"] == VERSION and about["identity"] == identity:
        return
    raise StorageError(
        f"{path} is the checkpoint of another training",
        why="the model, its int8 form, the texts or the schedule differ",
        hint="train into another folder, or remove the checkpoint",
    )


def _state(about: dict[str, Any], arrays: dict[str, FloatArray]) -> TrainingState:
    return TrainingState(
        step=int(about["step"]),
        curve=[CurvePoint(**point) for point in about["curve"]],
        best={
            name.removeprefix(_BEST): array
            for name, array in arrays.items()
            if name.startswith(_BEST)
        },
        stale=int(about["stale"]),
    )
