"""A device on which everything is known: how fast each recipe is, how close, how long it takes.

Nothing is compiled and nothing runs: figures stand in a table, and the clock moves by hand.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from exporter.config import Settings
from exporter.deliver.cache import Cache
from exporter.judge import Policy
from exporter.optimize.budget import WorkClock
from exporter.progress import SilentReporter
from exporter.steps import tournament
from exporter.steps.contest import Contest, Outcome
from exporter.steps.execution import Bench, Stand
from exporter.steps.quantization import Quantization
from exporter.steps.schedule import Turns
from exporter.steps.texts import Texts, TokenizedEvaluation
from exporter.steps.workspace import Workspace
from exporter.values import EvaluationEmbeddings, EvaluationSet, TextsSummary
from targets.contract import (
    ArtifactFile,
    CompiledArtifact,
    CompileRequest,
    Hardware,
    OnnxArtifact,
    Quantizer,
    Recipe,
    RunPlan,
    RuntimeVariant,
    TargetSpec,
    TokenSequences,
    Workload,
)
from targets.errors import DeviceLacksError, RunnerCrashedError

DIM = 16
LOOSE = Policy(min_mean_cosine=0.98, min_p1_cosine=-1.0, min_overlap_at_k=0.0, k=2)
SUMMARY = TextsSummary(name="t", origin="o", sha256="0" * 64, num_texts=1)
HARDWARE = Hardware(
    architecture="x86_64",
    vendor="test",
    model_name="test",
    microarchitecture="test",
    features=frozenset(),
    num_cores=2,
    memory_bytes=1 << 30,
)


Effect = Mapping[str, object] | Callable[[str], Mapping[str, object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """How a recipe, or a variant of one, runs.

    Args:
        single_ms: a single request.
        batched_ms: all documents of a mix together.
        noise: relative length of what is added to FP32's embeddings.
        size_bytes: of the artifact.
        crashes: whether its process dies at the start.
        lacks: what the device does not have, if it needs that.
        wobble: factors that its times take in turns.
    """

    single_ms: float = 10.0
    batched_ms: float = 100.0
    noise: float = 0.0
    size_bytes: int = 100
    crashes: bool = False
    lacks: str = ""
    wobble: tuple[float, ...] = (1.0,)


def recipe(name: str, quantizer: str = "none") -> Recipe:
    precision = "float32" if quantizer == "none" else "int8"
    return Recipe(
        name=name,
        precision=precision,
        float_precision="float32",
        quantizer=quantizer,
        why="for a test",
    )


@dataclass(slots=True, kw_only=True)
class Arena:
    """Recipes in the target's order with how each runs; what happened is noted.

    Args:
        table: recipe name → how it runs; the first is the baseline, names with "int8" are
            quantized.
        variants: variant name → changes of its plan with how it changes the run of any recipe,
            or of the one whose name is given.
        quantizers: recipe name → what makes it, where that is not NNCF.
        superseded: names of recipes that come in only where static ones fail.
    """

    folder: Path
    table: Mapping[str, Runs]
    variants: Mapping[str, tuple[Mapping[str, object], Effect]] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)
    policy: Policy = LOOSE
    quantizers: Mapping[str, Quantizer] = field(default_factory=dict)
    superseded: tuple[str, ...] = ()
    workload: TokenSequences | None = None
    turns: Turns = field(default_factory=Turns)
    num_queries: int = 30
    compile_s: float = 0.0
    embed_s: float = 0.0
    now_s: float = 0.0
    compiled: list[str] = field(default_factory=list)
    judged: list[str] = field(default_factory=list)
    timed: list[Workload] = field(default_factory=list)

    # --------------------------------------------------------------- the contract's parts

    spec = TargetSpec(
        name="arena",
        vendor="test",
        runtime="none",
        precisions=("float32", "int8"),
        max_opset=20,
        artifact_kind="none",
        extra="none",
    )

    def run_plan(self, artifact, graph, pad_token_id, num_threads) -> RunPlan:
        return RunPlan(
            adapter=Path("adapter.py"),
            model=Path(artifact.recipe.name),
            inputs=("input_ids",),
            output="sentence_embedding",
            pad_token_id=pad_token_id,
            embedding_dim=DIM,
            max_seq_length=64,
            options={"recipe": artifact.recipe.name},
        )

    def _variants(self, plan, num_threads) -> list[RuntimeVariant]:
        return [
            RuntimeVariant(
                name=name,
                plan=replace(
                    plan, **{"options": {**plan.options, "variant": name}, **dict(changes)}
                ),
                num_threads=num_threads,
                why="for a test",
            )
            for name, (changes, _) in self.variants.items()
        ]

    def start(self, plan: RunPlan, num_threads: int) -> ArenaRunner:
        runs = self.table[plan.options["recipe"]]
        variant = plan.options.get("variant")
        if variant is not None:
            effect = self.variants[variant][1]
            found = effect(plan.options["recipe"]) if callable(effect) else effect
            runs = replace(runs, **dict(found))
        if runs.lacks:
            raise DeviceLacksError(f"there is no {runs.lacks}", why="for a test")
        if runs.crashes:
            raise RunnerCrashedError("it died", why="for a test")
        return ArenaRunner(self, plan, runs)

    # ------------------------------------------------------------------------ the contest

    def hold(self) -> Outcome:
        """Hold the tournament."""
        recipes = [self._recipe(name) for name in self.table if name not in self.superseded]
        with Bench(self._work(), self._stand()) as bench:
            contest = self.contest(bench)
            reference = embeddings_of(contest.choosing)
            forced = contest.work.settings.precision != "auto"
            return tournament.hold_tournament(contest, recipes, None if forced else reference)

    def contest(self, bench: Bench) -> Contest:
        return Contest(
            work=bench._work,
            stand=bench._stand,
            bench=bench,
            graph=GRAPH,
            texts=make_texts(self.num_queries, self.workload),
            quantization=self._quantization(),
            policy=self.policy,
            turns=self.turns,
        )

    def _recipe(self, name: str) -> Recipe:
        usual: Quantizer = "nncf_ptq" if "int8" in name else "none"
        return recipe(name, self.quantizers.get(name, usual))

    def _quantization(self) -> Quantization:
        return Quantization(
            recipes=tuple(self._recipe(one) for one in self.table if one not in self.superseded),
            plans={},
            superseded=tuple(map(self._recipe, self.superseded)),
        )

    def _work(self) -> Workspace:
        return Workspace(
            settings=Settings(**self.settings),
            cache=Cache(self.folder),
            reporter=SilentReporter(),
            work_clock=WorkClock(lambda: self.now_s),
        )

    def _stand(self) -> Stand:
        target = _Target(self) if self.variants else _PlainTarget(self)
        return Stand(
            target=target,
            device=_Device(self),
            hardware=HARDWARE,
            tool_versions={},
            num_threads=1,
        )

    @contextmanager
    def compilers(self, target_name: str, num_processes: int) -> Iterator[object]:
        """Stands for `exporter.steps.compilers.compilers`: a target that no child can load."""
        yield self._compile

    def _compile(self, request: CompileRequest) -> CompiledArtifact:
        name = request.recipe.name
        self.compiled.append(name)
        self.now_s += self.compile_s
        size = self.table[name].size_bytes
        return CompiledArtifact(
            directory=request.output_dir,
            files=(ArtifactFile(path="model", sha256=name, size_bytes=size),),
            target="arena",
            recipe=request.recipe,
            built_from="",
            device_requirement=(),
            tool_versions={},
            compile_s=1.0,
        )


class _PlainTarget:
    """A target without variants."""

    def __init__(self, arena: Arena) -> None:
        self.spec = arena.spec
        self.run_plan = arena.run_plan


class _Target(_PlainTarget):
    def __init__(self, arena: Arena) -> None:
        super().__init__(arena)
        self.variants = arena._variants


class _Device:
    name = "arena"
    measures_latency = True

    def __init__(self, arena: Arena) -> None:
        self.start = arena.start


class ArenaRunner:
    """Answers from the table."""

    def __init__(self, arena: Arena, plan: RunPlan, runs: Runs) -> None:
        self.arena, self.plan, self.runs = arena, plan, runs
        self.factors = itertools.cycle(runs.wobble)

    def embed(self, tokens, batching=None, progress=None) -> np.ndarray:
        if len(tokens) == 60:  # the documents of the development split
            self.arena.judged.append(self.plan.options["recipe"])
            self.arena.now_s += self.arena.embed_s
        rows = rows_of(tokens)
        noise = np.random.default_rng(9).normal(size=rows.shape) / np.sqrt(DIM)
        return (rows + self.runs.noise * noise).astype(np.float32)

    def time(self, workload, passes, warmup=0) -> np.ndarray:
        self.arena.timed.append(workload)
        factor = next(self.factors)
        if workload.kind == "single":
            return np.full(passes * len(workload.tokens), factor * self.runs.single_ms, np.float32)
        return np.full(passes, factor * self.runs.batched_ms, np.float32)

    def close(self) -> None:
        pass


# ----------------------------------------------------------------------------- the texts


def tokens_of(lengths: Sequence[int], first_id: int = 1) -> TokenSequences:
    return TokenSequences.from_lists([[first_id + i] * n for i, n in enumerate(lengths)], 0)


def rows_of(tokens: TokenSequences) -> np.ndarray:
    """A unit vector of its own for every text; float32."""
    rows = np.stack([np.random.default_rng(int(ids[0])).normal(size=DIM) for ids in tokens])
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def make_texts(num_queries: int, workload: TokenSequences | None = None) -> Texts:
    queries = tokens_of([3 + i % 4 for i in range(num_queries)])
    documents = tokens_of([10 + i % 20 for i in range(60)], first_id=1000)
    texts = EvaluationSet(
        name="made",
        origin="made",
        split="dev",
        query_ids=tuple(f"q{i}" for i in range(num_queries)),
        queries=tuple(f"q {i}" for i in range(num_queries)),
        document_ids=tuple(f"d{i}" for i in range(60)),
        documents=tuple(f"d {i}" for i in range(60)),
        sha256="0" * 64,
    )
    both = TokenizedEvaluation(texts=texts, queries=queries, documents=documents)
    return Texts(
        calibration=documents,
        calibration_summary=SUMMARY,
        dev=both,
        test=both,
        workload=workload,
    )


def embeddings_of(evaluation: TokenizedEvaluation) -> EvaluationEmbeddings:
    documents = rows_of(evaluation.documents)
    queries = rows_of(evaluation.queries) if len(evaluation.queries) else documents[:0]
    return EvaluationEmbeddings(queries=queries, documents=documents)


GRAPH = OnnxArtifact(
    path=Path("model.onnx"),
    sha256="0" * 64,
    opset=20,
    inputs=(),
    outputs=(),
    model_id="m",
    revision=None,
    embedding_dim=DIM,
    pooling="mean",
    normalized=True,
    max_seq_length=64,
)
