"""Artifacts on a device: run, timed and looked into, each result cached."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from exporter.deliver.codec import dump_json, load_json
from exporter.optimize.rounds import Protocol, time_interleaved
from exporter.steps.compilers import side_by_side
from exporter.steps.texts import TokenizedEvaluation
from exporter.steps.workspace import Workspace
from exporter.values import EvaluationEmbeddings, TimedSeries
from targets.contract import (
    Batching,
    CompiledArtifact,
    Device,
    ExecutedPrecision,
    FloatArray,
    Hardware,
    Progress,
    Recipe,
    Runner,
    RunnerInfo,
    RunPlan,
    Target,
    TokenSequences,
    Workload,
    no_progress,
)
from targets.errors import DeviceError, NonFiniteError


@dataclass(frozen=True, slots=True, kw_only=True)
class Stand:
    """Where one target runs: the device, its hardware, the runtime's versions.

    `num_threads` are those of runners there; `build_threads` of this machine, which compiles.
    `prepares` says why the target's own device is not used ("": it is): artifacts are then made
    for `hardware`, and their arithmetic is simulated on `device`.
    """

    target: Target
    device: Device
    hardware: Hardware
    tool_versions: Mapping[str, str]
    num_threads: int
    build_threads: int = 1
    prepares: str = ""

    @property
    def measures_latency(self) -> bool:
        """Whether time means anything here."""
        return self.device.measures_latency and not self.prepares

    @property
    def identity(self) -> tuple[object, ...]:
        """Everything that figures taken here depend on."""
        return (
            self.target.spec.name,
            self.device.name,
            self.hardware.fingerprint,
            dict(self.tool_versions),
            self.num_threads,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A compiled artifact with the plan that runs it.

    `variant` names a way of running that is not the target's own ("": it is), with
    `num_threads` of its own (None: the stand's).
    """

    artifact: CompiledArtifact
    plan: RunPlan
    variant: str = ""
    num_threads: int | None = None

    @property
    def name(self) -> str:
        """What runners and samples go by: unique within one tournament."""
        return f"{self.recipe.name} {self.variant}" if self.variant else self.recipe.name

    @property
    def recipe(self) -> Recipe:
        """What it was made by."""
        return self.artifact.recipe

    @property
    def identity(self) -> tuple[object, ...]:
        """Everything that its embeddings depend on, besides the device."""
        return (
            [(file.path, file.sha256) for file in self.artifact.files],
            dict(self.plan.options),
            self.plan.length_multiple,
            self.plan.max_batch_tokens,
            self.num_threads,
        )


class Bench:
    """Runners of several artifacts on one device, started when first needed, ended together."""

    def __init__(self, work: Workspace, stand: Stand) -> None:
        self._work = work
        self._stand = stand
        self._runners: dict[str, Runner] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def end(self) -> None:
        """End all runners; whoever waits for one of them gets an error."""
        for name in list(self._runners):
            self.stop(name)

    def runner(self, built: Built) -> Runner:
        """Return the loaded runner of an artifact."""
        if built.name not in self._runners:
            num_threads = built.num_threads or self._stand.num_threads
            self._runners[built.name] = self._stand.device.start(built.plan, num_threads)
        return self._runners[built.name]

    def stop(self, name: str) -> None:
        """End one runner, if it runs."""
        runner = self._runners.pop(name, None)
        if runner is not None:
            runner.close()

    # ------------------------------------------------------------------- embeddings

    def embed(self, built: Built, evaluation: TokenizedEvaluation) -> EvaluationEmbeddings:
        """Embed an evaluation set; rows that are not finite end it by name."""
        sets = {"queries": evaluation.queries, "documents": evaluation.documents}
        total = sum(len(tokens) for tokens in sets.values())

        def build(folder: Path, progress: Progress) -> None:
            done = 0
            for name, tokens in sets.items():
                rows = self._embed(built, tokens, Batching(), _shifted(progress, done, total))
                np.save(folder / f"{name}.npy", rows, allow_pickle=False)
                done += len(tokens)

        texts = evaluation.texts
        title = f"embed {texts.name} ({texts.split}) with {built.name}"
        hashes = [tokens.sha256 for tokens in sets.values()]
        arrays = self._arrays(built, title, tuple(sets), build, hashes)
        return EvaluationEmbeddings(queries=arrays["queries"], documents=arrays["documents"])

    def embed_in_company(
        self, built: Built, tokens: TokenSequences, ways: Mapping[str, Batching]
    ) -> Mapping[str, FloatArray]:
        """Embed the same texts in several ways of batching: way → rows in the texts' order."""

        def build(folder: Path, progress: Progress) -> None:
            for number, (way, batching) in enumerate(ways.items(), start=1):
                rows = self._embed(built, tokens, batching)
                np.save(folder / f"{way}.npy", rows, allow_pickle=False)
                progress(number, len(ways))

        title = f"embed {', '.join(ways)} with {built.name}"
        described = {way: repr(batching) for way, batching in ways.items()}
        return self._arrays(built, title, tuple(ways), build, tokens.sha256, described)

    def _embed(
        self,
        built: Built,
        tokens: TokenSequences,
        batching: Batching,
        progress: Progress = no_progress,
    ) -> FloatArray:
        rows = self.runner(built).embed(tokens, batching, progress)
        if not np.isfinite(rows).all():
            raise NonFiniteError(f"{built.name}: embeddings contain NaN or infinity")
        return rows

    def _arrays(
        self,
        built: Built,
        title: str,
        names: Sequence[str],
        build: Callable[[Path, Progress], None],
        *parts: object,
    ) -> Mapping[str, FloatArray]:
        identity = (*built.identity, *self._stand.identity, *parts)
        folder = self._work.cached("embeddings", title, identity, build)
        return {name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in names}

    # ----------------------------------------------------------------------- timing

    def time(
        self,
        title: str,
        contenders: Sequence[Built],
        workloads: Sequence[Workload],
        protocol: Protocol,
    ) -> tuple[TimedSeries, ...]:
        """Time several artifacts in interleaved rounds on several workloads.

        An artifact that does not even load is left out of the series; the first must load.
        """

        def build(folder: Path, progress: Progress) -> None:
            runners = self._loading(contenders)
            for series in time_interleaved(runners, workloads, protocol, progress):
                np.savez(
                    folder / f"{series.workload}.npz",
                    allow_pickle=False,
                    texts_per_sample=np.array(series.texts_per_sample),
                    **{f"ms {name}": rows for name, rows in series.samples_ms.items()},
                )

        shapes = [
            (w.name, w.batch_size, w.sequence_length, w.tokens.sha256 if w.tokens else "")
            for w in workloads
        ]
        parts = (
            [built.identity for built in contenders],
            [built.name for built in contenders],
            *self._stand.identity,
            shapes,
            repr(protocol),
        )
        folder = self._work.cached("timing", title, parts, build)
        return tuple(_load_series(folder, workload.name) for workload in workloads)

    def _loading(self, contenders: Sequence[Built]) -> dict[str, Runner]:
        def load(built: Built) -> Runner | None:
            if built is contenders[0]:
                return self.runner(built)
            with suppress(DeviceError):  # whoever judges this artifact says why
                return self.runner(built)
            return None

        pieces = [partial(load, built) for built in contenders]
        loaded = side_by_side(pieces, self._stand.num_threads)
        named = zip(contenders, loaded, strict=True)
        return {built.name: runner for built, runner in named if runner is not None}

    # ------------------------------------------------------------------- inspection

    def look_into(
        self, built: Built, tokens: TokenSequences
    ) -> tuple[RunnerInfo, tuple[ExecutedPrecision, ...]]:
        """Return what the process says of itself and which precisions really ran."""

        def build(folder: Path, progress: Progress) -> None:
            runner = self.runner(built)
            (folder / "executed.json").write_bytes(dump_json(runner.inspect(tokens)))
            (folder / "info.json").write_bytes(dump_json(runner.info()))

        parts = (*built.identity, *self._stand.identity, tokens.sha256)
        title = f"inspect {built.name}"
        folder = self._work.cached("inspection", title, parts, build)
        executed = load_json(tuple[ExecutedPrecision, ...], (folder / "executed.json").read_bytes())
        return load_json(RunnerInfo, (folder / "info.json").read_bytes()), executed


def _shifted(progress: Progress, already: int, whole: int) -> Progress:
    """Report one part's progress as progress of the whole."""

    def report(done: int, total: int | None = None) -> None:
        progress(already + done, whole)

    return report


def _load_series(folder: Path, workload: str) -> TimedSeries:
    with np.load(folder / f"{workload}.npz", allow_pickle=False) as arrays:
        return TimedSeries(
            workload=workload,
            texts_per_sample=int(arrays["texts_per_sample"]),
            samples_ms={name[3:]: arrays[name] for name in arrays.files if name.startswith("ms ")},
        )
