"""The near end of a runner: tokens out, embeddings and samples back."""

from __future__ import annotations

import shutil
import weakref
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from targets.contract import (
    Batching,
    ExecutedPrecision,
    FloatArray,
    Progress,
    RunnerInfo,
    RunPlan,
    TokenSequences,
    Workload,
    no_progress,
)
from targets.devices.process import LineProcess, RunnerAnswerError
from targets.errors import (
    NonFiniteError,
    RunnerCrashedError,
    RunnerFailedError,
    StepError,
    StorageError,
)

DEFAULT_BATCHING = Batching()


class RunnerClient:
    """A loaded artifact in a child process (the contract's `Runner`).

    Args:
        process: the running child.
        scratch: folder for token and result files; removed on close.
        name: what errors call this runner.
        silence_s: the child is ended when it says nothing for this long.
        warnings: what the device has to say of every runner; they come before the child's own.
    """

    def __init__(
        self,
        process: LineProcess,
        scratch: Path,
        name: str,
        silence_s: float,
        warnings: tuple[str, ...] = (),
    ) -> None:
        self._process = process
        self._scratch = scratch
        self._name = name
        self._silence_s = silence_s
        self._warnings = warnings
        self._remove_scratch = weakref.finalize(self, shutil.rmtree, scratch, ignore_errors=True)

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._process.pid

    def load(self, plan: RunPlan) -> RunnerInfo:
        """Load the artifact; must be the first request.

        Raises:
            RunnerFailedError: if a file is missing, the runtime cannot be imported or
                refuses the model.
            RunnerCrashedError: if the child died.
        """
        return self._to_info(self._request({"command": "load", "plan": _plan_to_json(plan)}))

    def embed(
        self,
        tokens: TokenSequences,
        batching: Batching = DEFAULT_BATCHING,
        progress: Progress = no_progress,
    ) -> FloatArray:
        """Embed texts; rows in the order given, shape [num_texts, dim], float32.

        Raises:
            NonFiniteError: if a row is not finite; names the rows.
            RunnerFailedError: if the runtime raised or answered with a wrong shape.
            RunnerCrashedError: if the child died.
        """
        output = self._scratch / "embeddings.npy"
        message = {
            "command": "embed",
            "tokens": str(self._write(tokens)),
            "output": str(output),
            "batching": _batching_to_json(batching),
        }
        self._request(message, progress)
        return _take(output).astype(np.float32, copy=False)

    def time(self, workload: Workload, passes: int, warmup: int = 0) -> FloatArray:
        """Run `passes` timed passes after `warmup` untimed ones; samples in milliseconds.

        Raises:
            ValueError: if a workload of texts has none, or there is no pass.
            RunnerFailedError: if the runtime raised or the shape is beyond the model's limit.
            RunnerCrashedError: if the child died.
        """
        if passes < 1 or warmup < 0:
            raise ValueError(f"{passes} passes after {warmup} warm-ups cannot be timed")
        if workload.kind != "shape" and workload.tokens is None:
            raise ValueError(f"workload {workload.name!r} of kind {workload.kind!r} has no texts")
        output = self._scratch / "samples_ms.npy"
        message = {
            "command": "time",
            "kind": workload.kind,
            "batch_size": workload.batch_size,
            "sequence_length": workload.sequence_length,
            "tokens": None if workload.tokens is None else str(self._write(workload.tokens)),
            "passes": passes,
            "warmup": warmup,
            "output": str(output),
        }
        self._request(message)
        return _take(output).astype(np.float32, copy=False)

    def inspect(self, tokens: TokenSequences) -> tuple[ExecutedPrecision, ...]:
        """Say which precision each kind of operation ran in, on the longest batch of `tokens`.

        Raises:
            RunnerFailedError: if the runtime cannot tell, or `tokens` is empty.
            RunnerCrashedError: if the child died.
        """
        result = self._request({"command": "inspect", "tokens": str(self._write(tokens))})
        return tuple(
            ExecutedPrecision(op_type=op_type, dtype=dtype, count=count, time_share=share)
            for op_type, dtype, count, share in result["rows"]
        )

    def info(self) -> RunnerInfo:
        """Return load and first-call time, memory so far, versions, effective options.

        Raises:
            RunnerCrashedError: if the child died.
        """
        return self._to_info(self._request({"command": "info"}))

    def close(self) -> None:
        """End the child and remove its files; never raises, may be called again."""
        self._process.close()
        self._remove_scratch()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _request(self, message: dict[str, Any], progress: Progress = no_progress) -> dict[str, Any]:
        try:
            return self._process.request(message, self._silence_s, progress)
        except RunnerAnswerError as answer:
            raise _to_error(answer, str(message["command"]), self._name) from None
        except RunnerCrashedError as error:
            raise RunnerCrashedError(
                f"{self._name}: {error.what}", why=error.why, hint=error.hint
            ) from error

    def _to_info(self, values: dict[str, Any]) -> RunnerInfo:
        return RunnerInfo(**(values | {"warnings": (*self._warnings, *values["warnings"])}))

    def _write(self, tokens: TokenSequences) -> Path:
        """Write a token file once; rounds of timing use the same texts again and again."""
        path = self._scratch / f"tokens-{tokens.sha256[:16]}.npz"
        if not path.exists():
            try:
                tokens.save(path)
            except OSError as error:
                raise StorageError(f"{path} cannot be written", why=str(error)) from error
        return path


def _take(path: Path) -> FloatArray:
    """Read a result file and remove it, so that no later request can find an old one."""
    try:
        array: FloatArray = np.load(path, allow_pickle=False)
        path.unlink()
    except (OSError, ValueError) as error:
        raise StorageError(f"{path} cannot be read", why=str(error)) from error
    return array


def _plan_to_json(plan: RunPlan) -> dict[str, Any]:
    """Spell the plan out; links stay links, because a model finds its weights beside it."""
    return {
        "adapter": str(plan.adapter.absolute()),
        "model": str(plan.model.absolute()),
        "inputs": list(plan.inputs),
        "output": plan.output,
        "pad_token_id": plan.pad_token_id,
        "embedding_dim": plan.embedding_dim,
        "max_seq_length": plan.max_seq_length,
        "options": dict(plan.options),
        "length_multiple": plan.length_multiple,
        "max_batch_tokens": plan.max_batch_tokens,
    }


def _batching_to_json(batching: Batching) -> dict[str, Any]:
    return {
        "max_batch": batching.max_batch,
        "max_tokens": batching.max_tokens,
        "sort": batching.sort,
        "length_multiple": batching.length_multiple,
        "extra_padding": batching.extra_padding,
    }


def _to_error(answer: RunnerAnswerError, command: str, name: str) -> StepError:
    """Translate the runner's error into the tree of `targets.errors`."""
    if answer.kind == "non_finite":
        return NonFiniteError(
            f"{name}: {answer.message}",
            hint="use a wider precision for the layers that overflow, or float32",
        )
    if answer.kind == "storage":
        return StorageError(f"{name}: {answer.message}", hint="free space in the temporary folder")
    if answer.kind == "import":
        return RunnerFailedError(
            f"{name}: the runner cannot import {answer.subject or 'the runtime'}",
            why=answer.message,
            hint=f"install {answer.subject or 'it'} into the Python that starts the runner",
        )
    hint = "free memory, or use smaller batches" if answer.kind == "memory" else ""
    return RunnerFailedError(f"{name}: {command} failed", why=answer.message, hint=hint)
