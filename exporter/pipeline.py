"""The one flow, readable at a glance: source, texts, graph, targets, bundle."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from exporter.config import Settings
from exporter.deliver.bundle import check_output
from exporter.deliver.cache import Cache, default_root, temporary_cache
from exporter.judge import Policy
from exporter.progress import Reporter
from exporter.source.resolve import resolve_encoder
from exporter.steps.ahead import Wait, embedded_ahead
from exporter.steps.assemble import Shipment, make_record, write_bundle
from exporter.steps.attention import as_asked, require_targets
from exporter.steps.building import Ingredients, require_two_steps
from exporter.steps.certify import certify
from exporter.steps.compatibility import with_compatibility
from exporter.steps.contest import Contest
from exporter.steps.execution import Bench, Stand
from exporter.steps.job import job_material
from exporter.steps.meanwhile import compiled_meanwhile
from exporter.steps.prepare import prepare
from exporter.steps.quantization import quantize_layers
from exporter.steps.reduced import reduce_evaluation
from exporter.steps.schedule import Turns, run_stands
from exporter.steps.source import Graph, Source
from exporter.steps.stands import find_stands
from exporter.steps.texts import Texts, prepare_texts
from exporter.steps.tournament import hold_tournament
from exporter.steps.training import calls_for_training, trained_if_asked, with_training
from exporter.steps.untimed import choose_untimed
from exporter.steps.workspace import Workspace
from exporter.values import ExportRecord, TargetResult
from targets.contract import LOCAL
from targets.errors import ExporterError
from targets.hardware.detect import usable_cores
from targets.registry import open_device


def run_export(settings: Settings, reporter: Reporter, command: str) -> ExportRecord:
    """Export one encoder to every target asked for, verify it, and write the bundle.

    Args:
        settings: what was asked for.
        reporter: shown progress and notes.
        command: the command line, for the report.

    Raises:
        ExporterError: nothing could be delivered; an earlier bundle is left as it was.
    """
    check_output(settings.output)
    with open_workspace(settings, reporter) as work:
        stands = find_stands(work)
        targets = [stand.target for stand in stands.ready]
        require_targets(settings, targets)
        require_two_steps(settings, targets)
        spec = resolve_encoder(
            settings.model,
            pooling=settings.pooling,
            revision=settings.revision,
            trust_remote_code=settings.trust_remote_code,
            max_seq_length=settings.max_seq_length,
        )
        for warning in spec.warnings:
            reporter.note(warning)
        texts = prepare_texts(work, spec)
        source = Source(work, spec)
        num_cores = settings.threads or usable_cores()
        with embedded_ahead(source, texts.calibration, texts.evaluations, num_cores) as ahead:
            graph = source.graph(texts.calibration, ahead.torch_threads)
            turns, in_company = Turns(), len(stands.ready) > 1
            export = partial(_export_to, work, source, graph, texts, turns, in_company, ahead.wait)
            shipments = run_stands(stands.ready, export, turns)
        results = (*(shipment.result for shipment in shipments), *stands.not_run)
        record = make_record(work, spec, graph, texts, results, command)
        record = with_compatibility(work, record, source, texts.test, stands.ready, shipments)
        return write_bundle(work, record, shipments)


@contextmanager
def open_workspace(settings: Settings, reporter: Reporter) -> Iterator[Workspace]:
    """Yield the run's workspace with its cache, a throw-away one under `--no-cache`."""
    if settings.use_cache:
        cache = Cache(default_root(settings.cache), note=reporter.note)
        yield Workspace(settings=settings, cache=cache, reporter=reporter)
    else:
        with temporary_cache(reporter.note) as cache:
            yield Workspace(settings=settings, cache=cache, reporter=reporter)


def _export_to(
    work: Workspace,
    source: Source,
    graph: Graph,
    texts: Texts,
    turns: Turns,
    in_company: bool,
    embedded: Wait,
    stand: Stand,
) -> Shipment:
    """Choose on dev, certify on test; in company of others, one's failure is its own."""
    try:
        return _tournament(work, stand, source, graph, texts, turns, embedded)
    except ExporterError as error:
        if not in_company:
            raise
        failed = TargetResult(
            target=stand.target.spec.name,
            device=stand.device.name,
            status="failed",
            reason=str(error),
            hardware=stand.hardware,
            tool_versions=dict(stand.tool_versions),
        )
        return Shipment(result=failed, built=None, target=stand.target)


def _tournament(
    work: Workspace,
    stand: Stand,
    source: Source,
    graph: Graph,
    texts: Texts,
    turns: Turns,
    embedded: Wait,
) -> Shipment:
    with turns.here():
        offered = stand.target.candidates(graph.artifact, stand.hardware)
        recipes = as_asked(work.settings, stand.target, offered, graph.artifact)
        model = source.model() if stand.target.spec.needs_source else None
        given = Ingredients(graph=graph.artifact, calibration=texts.calibration, source=model)
        with compiled_meanwhile(work, stand, given, recipes, after=embedded):
            quantization = quantize_layers(
                work,
                source.spec,
                graph.artifact,
                texts.calibration,
                recipes,
                stand.hardware,
                only_backed=stand.measures_latency and not stand.prepares,
            )
        embedded()
        dev_reference = source.reference(texts.dev) if texts.dev is not None else None
        test_reference = source.reference(texts.test)
        train = partial(with_training, work, source, graph.artifact, texts)
        quantization = trained_if_asked(work, source, graph.artifact, texts, stand, quantization)
    hold = partial(
        Contest,
        work=work,
        graph=graph.artifact,
        quantization=quantization,
        policy=Policy(**work.settings.policy.thresholds),
        turns=turns,
        source=model,
    )
    job = None
    if stand.prepares:
        with turns.here(), Bench(work, stand) as bench:
            contest = hold(stand=stand, bench=bench, texts=texts)
            outcome = choose_untimed(contest, quantization.recipes, dev_reference)
            result = prepare(contest, outcome, test_reference)
            job = job_material(work, outcome, texts, test_reference)
    elif stand.measures_latency:
        with Bench(work, stand) as bench:
            turns.on_interrupt(bench.end)
            contest = hold(stand=stand, bench=bench, texts=texts)
            outcome = hold_tournament(contest, quantization.recipes, dev_reference)
            if calls_for_training(contest, outcome):
                with turns.here():
                    quantization = train(quantization)
                contest = replace(contest, quantization=quantization)
                outcome = hold_tournament(contest, quantization.recipes, dev_reference)
            result = certify(contest, outcome, test_reference)
    else:
        rehearsal = replace(stand, device=open_device(LOCAL))
        with turns.here(), Bench(work, rehearsal) as bench:
            contest = hold(stand=rehearsal, bench=bench, texts=texts)
            # one is built after the other here, so that none need be left out beforehand
            everything = quantization.with_superseded().recipes
            outcome = choose_untimed(contest, everything, dev_reference)
        reduced = reduce_evaluation(texts.test, seed=work.settings.seed)
        few = replace(texts, test=reduced.evaluation)
        with Bench(work, stand) as bench:
            turns.on_interrupt(bench.end)
            contest = hold(stand=stand, bench=bench, texts=few)
            result = certify(contest, outcome, reduced.rows_of(test_reference))
    complete = replace(result, quantization=quantization.summary)
    return Shipment(result=complete, built=outcome.chosen, target=stand.target, job=job)
