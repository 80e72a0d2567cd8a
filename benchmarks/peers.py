"""`python -m benchmarks.peers`: a bundle's artifact against what the peers give by default.

`--target` says whose artifact, and with it which peers (`benchmarks.line_ups`).
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
    DEFAULT_TARGET,
    bundle_plan,
    bundle_threads,
    ensure_bundle,
    own_threads,
    recipe_name,
    require_this_machine,
)
from benchmarks.contenders import Brief, Contender, our_contender, started
from benchmarks.contest import fidelities_of, first_texts, time_cold, time_warm, workloads_of
from benchmarks.figures import Comparison, contender_figures, is_beaten, workload_figures
from benchmarks.line_ups import LINE_UPS, LineUp
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Everything that a comparison needs, prepared before any clock starts."""

    line_up: LineUp
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
    output = given.output or RESULTS / LINE_UPS[given.target].results
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(dump_json(comparison) + b"\n")
    print(f"saved {output}")
    return int(ExitCode.GATE_FAILED if comparison.beaten else ExitCode.PASS)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--target", choices=LINE_UPS, default=DEFAULT_TARGET)
    parser.add_argument("--bundle", type=Path, help=f"our bundle [{_by_target('bundle')}]")
    parser.add_argument("--eval", help="evaluation texts [built-in]")
    parser.add_argument("--rounds", type=int, default=FULL.rounds, help="turns of each artifact")
    parser.add_argument("--round-s", type=float, default=FULL.round_s, help="seconds a turn")
    parser.add_argument("--cold-repeats", type=int, default=5, help="fresh processes of each")
    parser.add_argument("--num-texts", type=int, help="only so many texts, for a quick look")
    parser.add_argument("-o", "--output", type=Path, help=f"[{_by_target('results')}]")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")
    return parser


def _by_target(name: str) -> str:
    return ", ".join(f"{target}: {getattr(one, name)}" for target, one in LINE_UPS.items())


def _compare(given: argparse.Namespace) -> Comparison:
    _require_rounds(given)
    line_up = LINE_UPS[given.target]
    bundle = given.bundle or line_up.bundle
    report = ensure_bundle(bundle, line_up.target)
    settings = Settings(
        model=_model_setting(report),
        target=(line_up.target,),
        threads=bundle_threads(report, line_up.target),
        eval=given.eval,
        output=bundle,
    )
    with (
        make_reporter(quiet=given.quiet) as reporter,
        open_workspace(settings, reporter) as work,
    ):
        scene = _prepare(work, line_up, report, given.num_texts)
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


def _prepare(work: Workspace, line_up: LineUp, report: Report, num_texts: int | None) -> Scene:
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
    require_this_machine(report, stand.hardware, line_up.target)
    texts = prepare_texts(work, spec)
    brief = Brief(
        spec=spec,
        pad_token_id=texts.calibration.pad_token_id,
        calibration=_calibration_texts(work, texts),
    )
    ours = _ours(settings.output, line_up.target, report, brief.pad_token_id)
    return Scene(
        line_up=line_up,
        stand=stand,
        spec=spec,
        report=report,
        contenders=(ours, *line_up.peers(work, brief)),
        evaluation=first_texts(texts.test, num_texts),
        source=Source(work, spec),
        seed=settings.seed,
    )


def _ours(bundle: Path, target: str, report: Report, pad_token_id: int) -> Contender:
    return our_contender(
        bundle_plan(bundle, report, pad_token_id, target),
        recipe_name(report, target),
        report.provenance.tool_versions,
        own_threads(report, target),
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
        target=scene.line_up.target,
        beaten=is_beaten(figures),
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        command=shlex.join(["python", "-m", "benchmarks.peers", *sys.argv[1:]]),
        device=stand.device.name,
        hardware=stand.hardware,
        hardware_fingerprint=stand.hardware.fingerprint,
        num_threads=stand.num_threads,
        model_id=scene.spec.model_id,
        weights_sha256=scene.spec.weights_sha256,
        recipe=recipe_name(scene.report, scene.line_up.target),
        evaluation=scene.evaluation.summary,
        notes=scene.line_up.notes,
        tool_versions=tool_versions(_TOOLS),
        contenders=contenders,
        workloads=figures,
    )


if __name__ == "__main__":
    raise SystemExit(main())
