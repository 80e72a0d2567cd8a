"""`python -m benchmarks.training_aware --training TEXTS --eval BEIR`: what training takes away.

The static int8 form of all linear layers before and after quantization-aware training, both run
as Q/DQ graphs in ONNX Runtime on a collection that training never saw. The drift (1 - mean cosine
with FP32) and FP32's own ten nearest neighbours are judged by the code that judges exports.
"""

from __future__ import annotations

import argparse
import resource
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from exporter.config import Settings
from exporter.deliver.codec import dump_json
from exporter.judge import assess
from exporter.optimize.probe import embed_graph
from exporter.pipeline import open_workspace
from exporter.progress import Reporter
from exporter.source.resolve import resolve_encoder
from exporter.steps.quantization import quantize_layers
from exporter.steps.source import Source
from exporter.steps.stands import find_stands
from exporter.steps.texts import prepare_texts
from exporter.steps.training import with_training
from exporter.values import Estimate, EvaluationEmbeddings, TrainingSummary
from targets.contract import Hardware
from targets.errors import ExitCode
from targets.hardware.detect import usable_cores
from targets.quantization.plan import QdqPlan
from targets.quantization.plans_file import load_changed, load_prepared
from targets.quantization.qdq import insert_qdq

RESULTS = Path(__file__).with_name("results") / "training_aware.json"
LEAST_GONE = 0.5
"""Share of the post-training drift that training is to take away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One form on the judged collection.

    Args:
        drift: 1 - mean cosine with FP32, and its interval's ends.
        overlap_at_10: share of FP32's ten neighbours that are kept.
        p1_cosine: first percentile of the cosines.
    """

    drift: float
    drift_interval: tuple[float, float]
    overlap_at_10: Estimate | None
    p1_cosine: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """The whole result."""

    created_utc: str
    command: str
    hardware: Hardware
    target: str
    num_reduced_layers: int
    training_s: float
    peak_rss_bytes: int
    training: TrainingSummary
    judged_on: str
    post_training: Judged
    trained: Judged
    drift_gone: float


def measure(settings: Settings, reporter: Reporter, command: str) -> Document:
    """Train, and judge both forms on the test split of the settings' evaluation."""
    with open_workspace(settings, reporter) as work:
        stand = find_stands(work).ready[0]
        spec = resolve_encoder(settings.model)
        texts = prepare_texts(work, spec)
        source = Source(work, spec)
        graph = source.graph(texts.calibration).artifact
        recipes = stand.target.candidates(graph, stand.hardware)
        found = quantize_layers(work, spec, graph, texts.calibration, recipes, stand.hardware)
        started = time.perf_counter()
        trained = with_training(work, source, graph, texts, found)
        training_s = time.perf_counter() - started
        # The peak of this process, which trained; FP32 rows come later and need less.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if trained.summary is None or trained.summary.training is None:
            raise RuntimeError("nothing was trained")
        reference = source.reference(texts.test)

        def judge(plans: Path) -> Judged:
            prepared = load_prepared(plans)
            model, _ = load_changed(graph.path, prepared)
            quantized = insert_qdq(model, QdqPlan(layers=prepared.plans))
            rows = EvaluationEmbeddings(
                queries=embed_graph(quantized, graph, texts.test.queries, usable_cores()),
                documents=embed_graph(quantized, graph, texts.test.documents, usable_cores()),
            )
            lengths = (texts.test.queries.lengths, texts.test.documents.lengths)
            fidelity = assess(texts.test.texts, reference, rows, lengths=lengths, k=10)
            cosine = fidelity.mean_cosine
            return Judged(
                drift=1.0 - cosine.value,
                drift_interval=(1.0 - cosine.interval.high, 1.0 - cosine.interval.low),
                overlap_at_10=fidelity.overlap_at_k,
                p1_cosine=fidelity.p1_cosine.value,
            )

        (before,) = found.plans.values()
        after = next((one for scheme, one in trained.plans.items() if scheme.trained), before)
        first, second = judge(before), judge(after)
        return Document(
            created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
            command=command,
            hardware=stand.hardware,
            target=stand.target.spec.name,
            num_reduced_layers=sum(one.reduce_range for one in load_prepared(before).plans),
            training_s=training_s,
            peak_rss_bytes=peak,
            training=trained.summary.training,
            judged_on=texts.test.texts.name,
            post_training=first,
            trained=second,
            drift_gone=1.0 - second.drift / first.drift,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, save; exit code 1 where less than half of the drift is gone."""
    from exporter.cli.progress import make_reporter

    parser = argparse.ArgumentParser(prog="python -m benchmarks.training_aware")
    parser.add_argument("--training", required=True, help="unlabelled texts")
    parser.add_argument("--eval", required=True, help="collection that is judged")
    parser.add_argument("--target", default="onnxruntime")
    parser.add_argument("--training-steps", type=int, default=Settings().training_steps)
    parser.add_argument("--learning-rate", type=float, default=Settings().learning_rate)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    settings = Settings(
        target=(given.target,),
        precision="int8-static",
        qat=True,
        training=given.training,
        eval=given.eval,
        training_steps=given.training_steps,
        learning_rate=given.learning_rate,
    )
    words = sys.argv[1:] if arguments is None else arguments
    command = shlex.join(["python", "-m", "benchmarks.training_aware", *words])
    with make_reporter(quiet=False) as reporter:
        found = measure(settings, reporter, command)
    given.output.write_bytes(dump_json(found))
    print(
        f"{found.judged_on}: drift {found.post_training.drift:.6f} -> {found.trained.drift:.6f} "
        f"({found.drift_gone:.0%} gone) in {found.training_s:.0f} s, "
        f"{found.peak_rss_bytes / 1e9:.2f} GB at most; results {given.output}"
    )
    return int(ExitCode.PASS if found.drift_gone >= LEAST_GONE else ExitCode.GATE_FAILED)


if __name__ == "__main__":
    sys.exit(main())
