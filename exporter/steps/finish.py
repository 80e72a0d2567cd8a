"""A prepared bundle finished where its device is: built, timed, judged, and written anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from exporter.deliver.bill_of_materials import BILL_OF_MATERIALS, bill_of_materials
from exporter.deliver.bundle import BundleWriter, check_output, read_manifest
from exporter.deliver.folders import describe_files
from exporter.deliver.manifest import facts_again
from exporter.deliver.report import Report, write_report
from exporter.deliver.report.merge import with_section
from exporter.judge import Policy
from exporter.steps.assemble import Shipment, add_artifacts
from exporter.steps.building import finished
from exporter.steps.bundled import OpenBundle, open_bundle
from exporter.steps.certify import certify
from exporter.steps.contest import Contest, Outcome
from exporter.steps.execution import Bench, Built, Stand
from exporter.steps.finished_report import section_after, section_before, signed
from exporter.steps.found_job import (
    FoundJob,
    artifact_of_job,
    find_jobs,
    settings_of_job,
    texts_of_job,
)
from exporter.steps.job import add_job
from exporter.steps.job_calibration import calibration_tokens
from exporter.steps.members import stand_on
from exporter.steps.quantization import Quantization
from exporter.steps.variants import run_alike, tune
from exporter.steps.workspace import Workspace
from exporter.values import BuildJob, TargetResult
from targets.contract import TokenSequences
from targets.errors import NotInstalledError, UsageError
from targets.registry import load_target, open_device

_REPORTS = "reports"


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishAsked:
    """What is finished.

    Args:
        bundle: folder of the prepared bundle.
        target: whose artifact; None: every target's that can be finished here.
        engine: of the chosen artifact, built by the runtime's own tool; None: none.
        options: of the builds, by the target's own names.
        calibrates: the runtime chooses int8 scales itself, from the texts of the settings.
        command: the command line, for the report.
    """

    bundle: Path
    target: str | None = None
    engine: Path | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    calibrates: bool = False
    command: str = ""


def finish_bundle(work: Workspace, asked: FinishAsked) -> Report:
    """Finish what a bundle holds prepared, on this machine, and write the bundle anew.

    Nothing but the bundle is read: neither the model nor, unless the runtime calibrates, texts. It
    is written aside and takes the place of `work.settings.output` when all is done.

    Raises:
        StorageError: the bundle or its job is damaged, or of another version.
        UsageError: nothing in it waits for a device, or the target is not among it.
        NotInstalledError: the runtime or the device is missing here.
        ConfigError: a build option that the target does not have.
        TextsError: calibration texts are wrong, or evaluation texts too.
        CompileError, DeviceError, NonFiniteError: it cannot be built, or does not run.
    """
    check_output(work.settings.output)
    if asked.engine is not None and not asked.engine.is_file():
        raise UsageError(f"--engine {asked.engine}: there is no such file")
    with work.step("bundle", f"check every file of {asked.bundle}"):
        bundle = open_bundle(asked.bundle)
        jobs = find_jobs(bundle.path, bundle.files, bundle.report.model.graph.sha256)
    ready = _ready(work, bundle, _wanted(jobs, asked), asked)
    done = [(found, _finish(work, bundle, found, stand, asked)) for found, stand in ready]
    return _write(work, bundle, jobs, done, asked.command)


# ------------------------------------------------------------------------ what and where


def _wanted(jobs: Sequence[FoundJob], asked: FinishAsked) -> list[FoundJob]:
    found = [one for one in jobs if asked.target in (None, one.job.target)]
    names = ", ".join(one.job.target for one in jobs) or "nothing"
    if not found:
        wanted = f" for {asked.target}" if asked.target else ""
        raise UsageError(
            f"{asked.bundle} holds no build job{wanted}",
            why=f"it holds one for {names}",
            hint="prepare it: `exporter export --target tensorrt` on a machine without a GPU",
        )
    if asked.engine is not None and len(found) > 1:
        raise UsageError(
            f"--engine: {asked.bundle} holds jobs of several targets",
            why=names,
            hint=f"name the one it was built for: --target {found[0].job.target}",
        )
    return found


def _ready(
    work: Workspace, bundle: OpenBundle, wanted: Sequence[FoundJob], asked: FinishAsked
) -> list[tuple[FoundJob, Stand]]:
    """Return those whose runtime and device are here; the first reason where none is.

    Raises:
        NotInstalledError: of the only one, or of the first.
    """
    ready, missing = [], list[NotInstalledError]()
    for found in wanted:
        try:
            ready.append((found, _stand(work, found.job)))
        except NotInstalledError as error:
            missing.append(error)
    if not ready:
        first = missing[0]
        raise NotInstalledError(
            f"{bundle.name} cannot be finished here: {first.what}",
            why=first.why,
            hint=f"{first.hint or 'run it on the machine with the device'}; the bundle stays "
            "as it is, prepared",
        ) from first
    for one in missing:
        work.reporter.note(f"stays prepared: {one.what} ({one.why})")
    return ready


def _stand(work: Workspace, job: BuildJob) -> Stand:
    target = load_target(job.target)
    return stand_on(target, open_device(job.device), work.settings.threads)


# --------------------------------------------------------------------- built, timed, judged


@dataclass(frozen=True, slots=True, kw_only=True)
class _Done:
    """What became of one job."""

    result: TargetResult
    built: Built
    stand: Stand


def _finish(
    work: Workspace, bundle: OpenBundle, found: FoundJob, stand: Stand, asked: FinishAsked
) -> _Done:
    """Build all artifacts of a job and certify the chosen one beside the others."""
    settings = settings_of_job(found.job, work.settings)
    own = replace(work, settings=settings)
    texts, reference = texts_of_job(bundle.path, found, bundle.report.calibration)
    tokens = None
    if asked.calibrates:
        tokens = calibration_tokens(own.settings, bundle.spec, found.job, texts.test.texts)
    built = _build_all(own, bundle, found.job, stand, asked, tokens)
    with Bench(own, stand) as bench:
        contest = Contest(
            work=own,
            stand=stand,
            bench=bench,
            graph=bundle.graph,
            texts=texts,
            quantization=Quantization(recipes=(), plans={}),
            policy=Policy(**settings.policy.thresholds),
        )
        outcome = _tuned(contest, found.job, built)
        result = certify(contest, outcome, reference)
    return _Done(result=result, built=outcome.chosen, stand=stand)


def _tuned(contest: Contest, job: BuildJob, built: Mapping[str, Built]) -> Outcome:
    """Try other ways of running the chosen artifact; the others are run in the same way."""
    tuned = tune(contest, built[job.chosen], contest.budget())

    def alike(name: str) -> Built:
        if name == job.chosen:
            return tuned.built
        return run_alike(contest, built[name], tuned.built.variant)

    baseline = alike(job.baseline)
    return Outcome(
        candidates=(),
        chosen=tuned.built,
        baseline=baseline,
        best_float=baseline if job.best_float == job.baseline else alike(job.best_float),
        variants=tuned.results,
    )


def _build_all(
    work: Workspace,
    bundle: OpenBundle,
    job: BuildJob,
    stand: Stand,
    asked: FinishAsked,
    calibration: TokenSequences | None,
) -> dict[str, Built]:
    built = {}
    with ExitStack() as folders:
        for one in job.artifacts:
            name = one.recipe.name
            prepared = folders.enter_context(artifact_of_job(bundle.path, job, name))
            engine = asked.engine if name == job.chosen else None
            artifact = finished(work, stand, prepared, asked.options, engine, calibration)
            plan = stand.target.run_plan(
                artifact, bundle.graph, job.pad_token_id, stand.num_threads
            )
            built[name] = Built(artifact=artifact, plan=plan)
    return built


# ------------------------------------------------------------------------------- written


def _write(
    work: Workspace,
    bundle: OpenBundle,
    jobs: Sequence[FoundJob],
    done: Sequence[tuple[FoundJob, _Done]],
    command: str,
) -> Report:
    """Write the bundle with what was finished in the place of what was prepared."""
    report = bundle.report
    if report.compatibility is not None:
        work.reporter.note(
            "the compatibility matrix spoke of the prepared artifact and is left out: "
            "`exporter compatibility` makes a new one"
        )
    manifest = read_manifest(bundle.path)
    leave = {path for found, _ in done for path in _replaced(bundle, found.job)}
    leave |= {file.path for file in manifest.files if _made_anew(file.path)}
    with (
        work.step("bundle", f"write the bundle {work.settings.output}"),
        BundleWriter(work.settings.output, note=work.reporter.note) as writer,
    ):
        for file in manifest.files:
            if file.path not in leave:
                writer.add_file(bundle.path / file.path, file.path)
        for _, one in done:
            shipment = Shipment(target=one.stand.target, result=one.result, built=one.built)
            entries = add_artifacts(writer, [shipment], describe_files(writer.directory))
            entry = entries[one.result.target, one.result.device]
            after = section_after(report, replace(one.result, artifact=entry))
            report = with_section(report, after)
        _add_jobs(writer, bundle, jobs)
        report = signed(work, report, command)
        write_report(report, writer.directory / _REPORTS)
        writer.add_bytes(bill_of_materials(report), BILL_OF_MATERIALS)
        writer.commit(facts_again(manifest, report))
    return report


def _add_jobs(writer: BundleWriter, bundle: OpenBundle, jobs: Sequence[FoundJob]) -> None:
    """Keep every job, so that another GPU or another TensorRT can finish the bundle again."""
    for found in jobs:
        sources = {file.sha256: bundle.path / file.path for file in found.job.files}
        add_job(writer, found.job, sources)


def _made_anew(path: str) -> bool:
    parts = PurePosixPath(path).parts
    is_job = len(parts) > 2 and parts[1] == "job"
    return path == BILL_OF_MATERIALS or parts[0] == _REPORTS or is_job


def _replaced(bundle: OpenBundle, job: BuildJob) -> list[str]:
    """Return the files of the artifact that a job is about: those beside its entry file."""
    entry = section_before(bundle.report, job.target, job.device).artifact
    if entry is None:
        return []
    folder = PurePosixPath(entry.path).parent
    return [file.path for file in bundle.files if PurePosixPath(file.path).parent == folder]
