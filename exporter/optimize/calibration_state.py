"""Where a calibration pass stands, kept in one file so that a killed run can go on.

The file is numpy's `.npz` (no pickles): `header` is JSON in UTF-8 with the position and with
what the pass was made of, the other arrays are the states of the statistics. It is written
aside and renamed: whenever a process dies, the last whole one is there.
"""

from __future__ import annotations

import contextlib
import json
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from targets.errors import CalibrationError, StorageError
from targets.quantization.statistics import StreamingStatistics

CHECKPOINT_FILE = "calibration_checkpoint.npz"
EVERY_S = 20.0
_LEAST_INTERVALS_PER_WRITE = 20
"""Writing takes a twentieth of the time at most: second moments of a large model fill GBs."""

_HEADER = "header"
_VERSION = 1

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """What of the stream of texts was taken into the statistics.

    Args:
        window: the window that the pass stands in, from 0.
        window_sha256: `Window.sha256` of that window; "" at the very start.
        num_batches: batches of that window that were taken.
        num_texts: texts that were taken in all.
        num_tokens: their tokens.
    """

    window: int = 0
    window_sha256: str = ""
    num_batches: int = 0
    num_texts: int = 0
    num_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PassState:
    """A position and the statistics up to it, one for each activation."""

    position: Position
    statistics: tuple[StreamingStatistics, ...]


class Checkpoint:
    """The checkpoint of one calibration pass in a folder.

    Args:
        folder: existing folder of this pass alone.
        made_of: everything the statistics depend on, by a word for the user: graph, tokenizer,
            corpus, …
        every_s: seconds between two writes at least.
        note: told when a checkpoint that is there cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        made_of: Mapping[str, str],
        *,
        every_s: float = EVERY_S,
        note: Callable[[str], None],
    ) -> None:
        self.path = folder / CHECKPOINT_FILE
        self._made_of = made_of
        self._every_s = every_s
        self._note = note
        self._next_s = time.monotonic() + every_s

    def load(self) -> PassState | None:
        """Return where an earlier run of the same pass stood; None to start anew."""
        if not self.path.is_file():
            return None
        try:
            return self._loaded()
        except OSError as error:
            why = f"it cannot be read: {error.strerror or error}"
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            why = f"it is damaged: {error}"
        except (KeyError, TypeError, ValueError) as error:
            why = f"it is damaged: {error!r}"
        except CalibrationError as error:
            why = error.what
        self._note(f"the calibration starts anew, its checkpoint is not used: {why}")
        return None

    def _loaded(self) -> PassState:
        header, arrays = _read(self.path)
        differing = _differing(header["made_of"], self._made_of)
        if differing:
            raise CalibrationError(f"it was made with another {differing}")
        return PassState(
            position=Position(**header["position"]),
            statistics=_restore(arrays, int(header["num_tensors"])),
        )

    def save_if_due(self, state: PassState) -> None:
        """Write the checkpoint if the last one is old enough.

        Raises:
            StorageError: if it cannot be written.
        """
        started_s = time.monotonic()
        if started_s < self._next_s:
            return
        self.save(state)
        now_s = time.monotonic()
        pause_s = max(self._every_s, _LEAST_INTERVALS_PER_WRITE * (now_s - started_s))
        self._next_s = now_s + pause_s

    def save(self, state: PassState) -> None:
        """Write the checkpoint.

        Raises:
            StorageError: if it cannot be written.
        """
        header = {
            "version": _VERSION,
            "made_of": dict(self._made_of),
            "position": asdict(state.position),
            "num_tensors": len(state.statistics),
        }
        arrays: Arrays = {_HEADER: np.frombuffer(json.dumps(header).encode(), np.uint8)}
        for index, one in enumerate(state.statistics):
            arrays |= {f"{index}/{name}": array for name, array in one.state().items()}
        aside = self.path.with_name(f".{CHECKPOINT_FILE}.part")
        try:
            with aside.open("wb") as stream:
                np.savez(stream, allow_pickle=False, **arrays)
            aside.replace(self.path)
        except OSError as error:
            raise StorageError(
                f"the calibration's checkpoint {self.path} cannot be written",
                why=error.strerror or str(error),
                hint="check free space and permissions",
            ) from error
        finally:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the checkpoint: the pass is done, or its texts have changed."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


def _read(path: Path) -> tuple[dict[str, Any], Arrays]:
    # numpy leaves a file open that it opened itself and could not read.
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
        arrays: Arrays = {name: stored[name] for name in stored.files}
    header = json.loads(arrays.pop(_HEADER).tobytes())
    if header["version"] != _VERSION:
        raise ValueError(f"version {header['version']}")
    return dict(header), arrays


def _differing(stored: Mapping[str, str], made_of: Mapping[str, str]) -> str:
    """Name what a checkpoint and this pass do not share; "" when they share everything."""
    names = dict.fromkeys((*made_of, *stored))
    return " and ".join(name for name in names if stored.get(name) != made_of.get(name))


def _restore(arrays: Arrays, num_tensors: int) -> tuple[StreamingStatistics, ...]:
    states: list[Arrays] = [{} for _ in range(num_tensors)]
    for name, array in arrays.items():
        index, _, field = name.partition("/")
        states[int(index)][field] = array
    return tuple(StreamingStatistics.restore(state) for state in states)
