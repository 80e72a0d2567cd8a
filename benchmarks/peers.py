"""`python -m benchmarks.peers`: the bundle's artifact against what the peers give by default.

Everything runs in one interleaved run on this machine: the same runner, clock, threads and
tokens for all. Exit code 1 when a peer is both faster and closer to FP32 at any workload.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.bundles import (
    TARGET,
    bundle_plan,
    bundle_threads,
    ensure_bundle,
    recipe_name,
    require_this_machine,
)
from benchmarks.contenders import Contender, our_contender, peer_contenders, started
from benchmarks.contest import fidelities_of, first_texts, time_cold, time_warm, workloads_of
from benchmarks.figures import Comparison, contender_figures, is_beaten, workload_figures
from benchmarks.peer_files import require_peer_support
from exporter.cli.progress import make_reporter
from exporter.config import Settings
from exporter.deliver.codec import dump_json
from exporter.deliver.report import Report
from exporter.optimize.rounds import FULL, Protocol
from exporter.optimize.workloads import MIX_SINGLE
from exporter.pipeline import open_workspace
from exporter.source.resolve import resolve_encoder
from exporter.steps.execution import Stand
from exporter.steps.source import Source
from exporter.steps.stands import find_stands
from exporter.steps.texts import Texts, TokenizedEvaluation, prepare_texts
from exporter.steps.workspace import Workspace, tool_versions
from exporter.values import EncoderSpec
from targets.errors import ExitCode, ExporterError, UsageError

RESULTS = Path(__file__).with_name("results")
_TOOLS = ("embedding-exporter", "torch", "transformers", "onnxruntime", "openvino", "numpy")
_NOTES = (
    "peers end with token states: mean pooling and normalization behind them (numpy) are "
    "part of their time, as they are of their users'",
    "mixes: peers take 32 texts a batch, longest first, padded to the longest of the batch; "
    "ours takes the batches of its own plan",
    "st-openvino-int8 is export_static_quantized_openvino_model with its own settings, "
    "calibrated with this project's texts, because its own data set comes from the hub",
    "st-openvino leaves the precision to OpenVINO, which takes bfloat16 where the CPU has it",
    "every artifact runs in this environment's runtimes (run_with), whatever made it (made_with)",
    f"{MIX_SINGLE}-cold is the first pass of a fresh process; shown, not judged",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Everything that a comparison needs, prepared before any clock starts."""

    stand: Stand
    spec: EncoderSpec
    report: Report
    contenders: tuple[Contender, ...]
    evaluation: TokenizedEvaluation
    source: Source
    seed: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print, save; return the exit code."""
    given = _parser().parse_args(arguments)
    try:
        comparison = _compare(given)
    except ExporterError as error:
        print(f"error [{error.code}]: {error}", file=sys.stderr)
        return int(error.exit_code)
    from benchmarks.table import print_comparison

    print_comparison(comparison)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_bytes(dump_json(comparison) + b"\n")
    print(f"saved {given.output}")
    return int(ExitCode.GATE_FAILED if comparison.beaten else ExitCode.PASS)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--bundle", type=Path, default=Path("out"), help="our bundle [out]")
    parser.add_argument("--eval", help="evaluation texts [built-in]")
    parser.add_argument("--rounds", type=int, default=FULL.rounds, help="turns of each artifact")
    parser.add_argument("--round-s", type=float, default=FULL.round_s, help="seconds a turn")
    parser.add_argument("--cold-repeats", type=int, default=5, help="fresh processes of each")
    parser.add_argument("--num-texts", type=int, help="only so many texts, for a quick look")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "peers.json")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")
    return parser


def _compare(given: argparse.Namespace) -> Comparison:
    _require_rounds(given)
    report = ensure_bundle(given.bundle)
    settings = Settings(
        model=_model_setting(report),
        target=(TARGET,),
        threads=bundle_threads(report),
        eval=given.eval,
        output=given.bundle,
    )
    with (
        make_reporter(quiet=given.quiet) as reporter,
        open_workspace(settings, reporter) as work,
    ):
        scene = _prepare(work, report, given.num_texts)
        protocol = Protocol(rounds=given.rounds, round_s=given.round_s)
        return _measure(work, scene, protocol, given.cold_repeats)


def _require_rounds(given: argparse.Namespace) -> None:
    for flag, value in (("--rounds", given.rounds), ("--cold-repeats", given.cold_repeats)):
        if value < 2:
            raise UsageError(f"{flag} {value} is too few", why="an interval needs at least 2")


def _model_setting(report: Report) -> str | None:
    """Return the model as it was named for the bundle; None: the built-in one."""
    named = report.provenance.settings.get("model", "None")
    return None if named == "None" else named


def _prepare(work: Workspace, report: Report, num_texts: int | None) -> Scene:
    settings = work.settings
    spec = resolve_encoder(settings.model, max_seq_length=report.model.max_seq_length)
    require_peer_support(spec)
    if spec.weights_sha256 != report.model.weights_sha256:
        raise UsageError(
            f"{settings.output} was not made from the model that {spec.model_id} is today",
            why="the weights differ, so FP32 embeddings of today are no reference for it",
            hint="export the bundle again",
        )
    stand = find_stands(work).ready[0]
    require_this_machine(report, stand.hardware)
    texts = prepare_texts(work, spec)
    pad_token_id = texts.calibration.pad_token_id
    plan = bundle_plan(settings.output, report, pad_token_id)
    ours = our_contender(plan, recipe_name(report), report.provenance.tool_versions)
    peers = peer_contenders(work, spec, pad_token_id, _calibration_texts(work, texts))
    return Scene(
        stand=stand,
        spec=spec,
        report=report,
        contenders=(ours, *peers),
        evaluation=first_texts(texts.test, num_texts),
        source=Source(work, spec),
        seed=settings.seed,
    )


def _calibration_texts(work: Workspace, texts: Texts) -> tuple[str, ...]:
    """Return the very texts that our own calibration takes."""
    from exporter.source.corpus import load_calibration, normalize_text

    settings = work.settings
    sets = [part.texts for part in (texts.dev, texts.test) if part is not None]
    return load_calibration(
        settings.calibration,
        num_samples=settings.num_samples,
        seed=settings.seed,
        exclude={normalize_text(t) for s in sets for t in (*s.queries, *s.documents)},
    ).texts


def _measure(work: Workspace, scene: Scene, protocol: Protocol, cold_repeats: int) -> Comparison:
    stand, reporter = scene.stand, work.reporter
    workloads = workloads_of(scene.evaluation, scene.spec.max_seq_length)
    (mix,) = (workload for workload in workloads if workload.name == MIX_SINGLE)
    cold = time_cold(scene.contenders, stand.device, stand.num_threads, mix, cold_repeats, reporter)
    with started(scene.contenders, stand.device, stand.num_threads) as runners:
        warm = time_warm(runners, workloads, protocol, reporter)
        reference = scene.source.reference(scene.evaluation)
        fidelities = fidelities_of(runners, scene.evaluation, reference, scene.seed, reporter)
        contenders = tuple(
            contender_figures(one, runners[one.name].info(), fidelities[one.name])
            for one in scene.contenders
        )
    figures = tuple(workload_figures(series, fidelities) for series in (*warm, cold))
    return Comparison(
        beaten=is_beaten(figures),
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        command=shlex.join(["python", "-m", "benchmarks.peers", *sys.argv[1:]]),
        device=stand.device.name,
        hardware=stand.hardware,
        hardware_fingerprint=stand.hardware.fingerprint,
        num_threads=stand.num_threads,
        model_id=scene.spec.model_id,
        weights_sha256=scene.spec.weights_sha256,
        recipe=recipe_name(scene.report),
        evaluation=scene.evaluation.summary,
        notes=_NOTES,
        tool_versions=tool_versions(_TOOLS),
        contenders=contenders,
        workloads=figures,
    )


if __name__ == "__main__":
    raise SystemExit(main())
