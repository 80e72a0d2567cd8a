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
from targets.devices.files import RunnerFiles, SameMachine
from targets.devices.lines import RunnerAnswerError, RunnerProcess
from targets.errors import (
    DeviceLacksError,
    NonFiniteError,
    RunnerCrashedError,
    RunnerFailedError,
    StepError,
    StorageError,
)

DEFAULT_BATCHING = Batching()


class RunnerClient:
    """A loaded artifact in a process of its own (the contract's `Runner`).

    Args:
        process: the running runner.
        scratch: folder of this machine for token and result files; removed on close.
        name: what errors call this runner.
        silence_s: the runner is ended when it says nothing for this long.
        warnings: what the device has to say of every runner; they come before its own.
        files: how files get to the runner and back; None: it sees this file system.
        install_command: what installs a package where the runner lives, as far as the name of
            the package; "" where nothing special is known.
    """

    def __init__(
        self,
        process: RunnerProcess,
        scratch: Path,
        name: str,
        silence_s: float,
        warnings: tuple[str, ...] = (),
        *,
        files: RunnerFiles | None = None,
        install_command: str = "",
    ) -> None:
        self._process = process
        self._scratch = scratch
        self._name = name
        self._silence_s = silence_s
        self._warnings = warnings
        self._files = files or SameMachine(scratch)
        self._install_command = install_command
        self._remove_scratch = weakref.finalize(self, shutil.rmtree, scratch, ignore_errors=True)

    @property
    def pid(self) -> int:
        """Process id, on the machine where the runner lives."""
        return self._process.pid

    def load(self, plan: RunPlan) -> RunnerInfo:
        """Load the artifact; must be the first request.

        Raises:
            RunnerFailedError: if a file is missing, the runtime cannot be imported or
                refuses the model.
            RunnerCrashedError: if the runner died.
            StorageError: if the files cannot be brought to the runner.
        """
        adapter = self._files.install(plan.adapter, parts=plan.adapter_parts)
        model = self._files.install(plan.model, with_siblings=True)
        message = {"command": "load", "plan": _plan_to_json(plan, adapter, model)}
        return self._to_info(self._request(message))

    def warn(self, *warnings: str) -> None:
        """Add what the device has to say of this runner."""
        self._warnings = (*self._warnings, *warnings)

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
            RunnerCrashedError: if the runner died.
        """
        output = self._files.place("embeddings.npy")
        message = {
            "command": "embed",
            "tokens": self._put(tokens),
            "output": output,
            "batching": _batching_to_json(batching),
        }
        self._request(message, progress)
        return _take(self._files.fetch(output)).astype(np.float32, copy=False)

    def time(self, workload: Workload, passes: int, warmup: int = 0) -> FloatArray:
        """Run `passes` timed passes after `warmup` untimed ones; samples in milliseconds.

        Raises:
            ValueError: if a workload of texts has none, or there is no pass.
            RunnerFailedError: if the runtime raised or the shape is beyond the model's limit.
            RunnerCrashedError: if the runner died.
        """
        if passes < 1 or warmup < 0:
            raise ValueError(f"{passes} passes after {warmup} warm-ups cannot be timed")
        if workload.kind != "shape" and workload.tokens is None:
            raise ValueError(f"workload {workload.name!r} of kind {workload.kind!r} has no texts")
        output = self._files.place("samples_ms.npy")
        message = {
            "command": "time",
            "kind": workload.kind,
            "batch_size": workload.batch_size,
            "sequence_length": workload.sequence_length,
            "tokens": None if workload.tokens is None else self._put(workload.tokens),
            "passes": passes,
            "warmup": warmup,
            "output": output,
        }
        self._request(message)
        return _take(self._files.fetch(output)).astype(np.float32, copy=False)

    def inspect(self, tokens: TokenSequences) -> tuple[ExecutedPrecision, ...]:
        """Say which precision each kind of operation ran in, on the longest batch of `tokens`.

        Raises:
            RunnerFailedError: if the runtime cannot tell, or `tokens` is empty.
            RunnerCrashedError: if the runner died.
        """
        result = self._request({"command": "inspect", "tokens": self._put(tokens)})
        return tuple(
            ExecutedPrecision(op_type=op_type, dtype=dtype, count=count, time_share=share)
            for op_type, dtype, count, share in result["rows"]
        )

    def info(self) -> RunnerInfo:
        """Return load and first-call time, memory so far, versions, effective options.

        Raises:
            RunnerCrashedError: if the runner died.
        """
        return self._to_info(self._request({"command": "info"}))

    def close(self) -> None:
        """End the runner and remove its files; never raises, may be called again."""
        self._process.close()
        self._files.close()
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
            raise self._to_error(answer, str(message["command"])) from None
        except RunnerCrashedError as error:
            raise RunnerCrashedError(
                f"{self._name}: {error.what}", why=error.why, hint=error.hint
            ) from error

    def _to_info(self, values: dict[str, Any]) -> RunnerInfo:
        return RunnerInfo(**(values | {"warnings": (*self._warnings, *values["warnings"])}))

    def _put(self, tokens: TokenSequences) -> str:
        """Write a token file once; rounds of timing use the same texts again and again."""
        path = self._scratch / f"tokens-{tokens.sha256[:16]}.npz"
        if not path.exists():
            try:
                tokens.save(path)
            except OSError as error:
                raise StorageError(f"{path} cannot be written", why=str(error)) from error
        return self._files.put(path)

    def _to_error(self, answer: RunnerAnswerError, command: str) -> StepError:
        """Translate the runner's error into the tree of `targets.errors`."""
        name = self._name
        if answer.kind == "non_finite":
            return NonFiniteError(
                f"{name}: {answer.message}",
                hint="use a wider precision for the layers that overflow, or float32",
            )
        if answer.kind == "storage":
            hint = "free space in the temporary folder"
            return StorageError(f"{name}: {answer.message}", hint=hint)
        if answer.kind == "lacks":
            return DeviceLacksError(f"{name}: there is no {answer.subject}", why=answer.message)
        if answer.kind == "import":
            return DeviceLacksError(
                f"{name}: the runner cannot import {answer.subject or 'the runtime'}",
                why=answer.message,
                hint=self._how_to_install(answer.subject),
            )
        hint = "free memory, or use smaller batches" if answer.kind == "memory" else ""
        return RunnerFailedError(f"{name}: {command} failed", why=answer.message, hint=hint)

    def _how_to_install(self, package: str) -> str:
        if self._install_command and package:
            return f"{self._install_command} {package}"
        return f"install {package or 'it'} into the Python that starts the runner"


def _take(path: Path) -> FloatArray:
    """Read a result file and remove it, so that no later request can find an old one."""
    try:
        array: FloatArray = np.load(path, allow_pickle=False)
        path.unlink()
    except (OSError, ValueError) as error:
        raise StorageError(f"{path} cannot be read", why=str(error)) from error
    return array


def _plan_to_json(plan: RunPlan, adapter: str, model: str) -> dict[str, Any]:
    """Spell the plan out, with the files as the runner finds them."""
    return {
        "adapter": adapter,
        "model": model,
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
