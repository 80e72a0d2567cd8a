"""The commands: load, embed, time, inspect, info. One at a time, each answered once."""

from __future__ import annotations

import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .adapter import CheckedSession, adapter_errors, open_checked_session
from .batches import full_batch, iterate_inputs, read_tokens
from .channel import Channel
from .machine import memory_bytes, restart_peak, tool_versions
from .plan import BatchRules, RunnerFailure, SessionPlan
from .timing import at_once, one_by_one, prepare_workload, time_passes

_FIRST_CALL_SHAPE = (1, 16)
_EMBED_PROGRESS_S = 0.2
_TIMING_PROGRESS_S = 5.0  # rare: waking the caller takes time from the next sample
_NAMED_ROWS = 10
_BATCHES_AT_ONCE = 16
"""Handed over together where a session takes several: bounded, so that inputs stay small."""


class Server:
    """Answers commands on one channel; holds at most one loaded artifact."""

    def __init__(
        self, channel: Channel, num_threads: int, facts: dict[str, str], warnings: tuple[str, ...]
    ) -> None:
        self._channel = channel
        self._num_threads = num_threads
        self._facts = facts
        self._warnings = warnings
        self._loaded: Artifact | None = None
        self._commands = {
            "load": self._load,
            "embed": self._embed,
            "time": self._time,
            "inspect": self._inspect,
            "info": self._info,
        }

    def serve(self) -> None:
        """Answer commands until `exit`."""
        for command in self._channel.commands():
            try:
                self._channel.result(self._answer(command))
            except RunnerFailure as failure:
                self._channel.error(failure.kind, failure.message, failure.subject)
        if self._loaded is not None:
            self._loaded.session.close()

    def _answer(self, command: dict[str, Any]) -> dict[str, Any]:
        name = command.get("command")
        if name not in self._commands:
            raise RunnerFailure("command", f"unknown command {name!r}")
        try:
            return self._commands[name](command)
        except KeyError as error:
            raise RunnerFailure("command", f"{name} lacks {error}") from error
        except MemoryError as error:
            raise RunnerFailure("memory", f"out of memory during {name}") from error

    def _artifact(self) -> Artifact:
        if self._loaded is None:
            raise RunnerFailure("command", "nothing is loaded yet")
        return self._loaded

    def _load(self, command: dict[str, Any]) -> dict[str, Any]:
        if self._loaded is not None:
            raise RunnerFailure("command", "an artifact is loaded already; start another runner")
        plan = SessionPlan.from_json(command["plan"], self._num_threads)
        self._loaded = Artifact(plan)
        return self._info(command)

    def _embed(self, command: dict[str, Any]) -> dict[str, Any]:
        artifact = self._artifact()
        tokens = read_tokens(Path(command["tokens"]), artifact.plan)
        rules = BatchRules.from_json(command.get("batching", {}), artifact.plan)
        embeddings = np.empty((len(tokens), artifact.plan.embedding_dim), np.float32)
        done = 0
        batches = iterate_inputs(tokens, rules, artifact.plan)
        while some := list(islice(batches, artifact.batches_at_once)):
            results = artifact.session.embed_many([inputs for _, inputs in some])
            for (batch, _), rows in zip(some, results, strict=True):
                embeddings[batch] = rows
                done += len(batch)
            self._channel.progress(done, len(tokens), _EMBED_PROGRESS_S)
        _check_finite(embeddings)
        _save(Path(command["output"]), embeddings)
        return {"num_texts": len(tokens)}

    def _time(self, command: dict[str, Any]) -> dict[str, Any]:
        artifact = self._artifact()
        path = command.get("tokens")
        tokens = read_tokens(Path(path), artifact.plan) if path else None
        shape = (int(command.get("batch_size", 1)), int(command.get("sequence_length", 0)))
        samples = prepare_workload(command["kind"], shape, tokens, artifact.plan)
        passes, warmup = int(command["passes"]), int(command.get("warmup", 0))
        run = artifact.session.run
        run_many = artifact.session.run_many if command["kind"] == "batched" else None
        with adapter_errors("timing"):
            samples_ms = time_passes(
                one_by_one(run) if run_many is None else at_once(run_many),
                samples,
                passes,
                warmup,
                lambda done: self._channel.progress(done, warmup + passes, _TIMING_PROGRESS_S),
            )
        _save(Path(command["output"]), samples_ms)
        return {"num_samples": len(samples_ms)}

    def _inspect(self, command: dict[str, Any]) -> dict[str, Any]:
        artifact = self._artifact()
        tokens = read_tokens(Path(command["tokens"]), artifact.plan)
        rules = BatchRules.from_json({}, artifact.plan)
        for _, inputs in iterate_inputs(tokens, rules, artifact.plan):
            return {"rows": artifact.inspect(inputs)}
        raise RunnerFailure("tokens", "inspecting needs at least one text")

    def _info(self, _: dict[str, Any]) -> dict[str, Any]:
        info = self._artifact().info()
        info["options"] |= self._facts
        info["warnings"] = [*self._warnings, *info["warnings"]]
        return info


class Artifact:
    """A loaded artifact with what loading it took.

    `batches_at_once` is how many batches are handed over together when texts are embedded.
    """

    def __init__(self, plan: SessionPlan) -> None:
        self.plan = plan
        start_s = time.perf_counter()
        self.session: CheckedSession = open_checked_session(plan)
        self._load_s = time.perf_counter() - start_s
        self.batches_at_once = 1 if self.session.run_many is None else _BATCHES_AT_ONCE
        length = min(_FIRST_CALL_SHAPE[1], plan.max_seq_length)
        inputs = full_batch(_FIRST_CALL_SHAPE[0], length, plan, None)
        start_s = time.perf_counter()
        self.session.embed(inputs)
        self._first_call_ms = (time.perf_counter() - start_s) * 1e3
        self._peak_before_inspect_bytes = 0

    def inspect(self, inputs: dict[str, NDArray[np.int64]]) -> list[list[Any]]:
        """Inspect without letting a second, profiled copy count as this artifact's memory."""
        peak_bytes = memory_bytes()[1]
        rows = [list(row) for row in self.session.inspect(inputs)]
        if restart_peak():
            self._peak_before_inspect_bytes = max(self._peak_before_inspect_bytes, peak_bytes)
        return rows

    def info(self) -> dict[str, Any]:
        """Return what is known about this process so far."""
        rss_bytes, peak_bytes = memory_bytes()
        return {
            "load_s": self._load_s,
            "first_call_ms": self._first_call_ms,
            "rss_bytes": rss_bytes,
            "peak_rss_bytes": max(peak_bytes, self._peak_before_inspect_bytes),
            "tool_versions": tool_versions() | self.session.versions(),
            "options": dict(self.session.options()),
            "warnings": list(self.session.option_warnings()),
        }


def _check_finite(embeddings: NDArray[np.float32]) -> None:
    bad = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if len(bad):
        named = ", ".join(map(str, bad[:_NAMED_ROWS]))
        more = ", …" if len(bad) > _NAMED_ROWS else ""
        raise RunnerFailure(
            "non_finite",
            f"{len(bad)} of {len(embeddings)} embeddings are not finite (texts {named}{more})",
        )


def _save(path: Path, array: NDArray[Any]) -> None:
    try:
        np.save(path, array, allow_pickle=False)
    except OSError as error:
        raise RunnerFailure("storage", f"{path} cannot be written: {error}") from error
