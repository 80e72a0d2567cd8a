"""A delivered bundle, opened again: hashes checked, artifacts run as its report says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from exporter.deliver.archive import opened_bundle
from exporter.deliver.manifest import read_manifest, require_intact
from exporter.deliver.report import Report, read_report
from exporter.deliver.report.document import TargetSection, VariantSection
from exporter.values import EncoderSpec, ShippedFile
from targets.contract import (
    ArtifactFile,
    CompiledArtifact,
    OnnxArtifact,
    Recipe,
    RunPlan,
    Target,
    variants_of,
)
from targets.errors import StorageError
from targets.hardware.detect import usable_cores
from targets.hashing import sha256_file
from targets.registry import load_target

_GRAPH = "onnx/model.onnx"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenBundle:
    """A bundle whose files are those of its manifest.

    Args:
        path: its folder; a temporary one where an archive was given.
        source: folder or archive, as the user named it.
        report: what was found of it.
        files: everything in it but the manifest.
    """

    path: Path
    source: Path
    report: Report
    files: tuple[ShippedFile, ...]

    @property
    def name(self) -> str:
        """What messages and matrices call it."""
        return str(self.source)

    @property
    def graph(self) -> OnnxArtifact:
        """The FP32 graph."""
        return graph_of(self.path, self.report)

    @property
    def spec(self) -> EncoderSpec:
        """The source model as the report describes it, with the bundle's own tokenizer."""
        model = self.report.model
        return EncoderSpec(
            model_id=model.id,
            source=model.source,
            directory=self.path,
            revision=model.revision,
            library=model.library,
            architecture=model.architecture,
            model_type=model.model_type,
            pooling=model.pooling,
            normalize=model.normalize,
            modules=model.modules,
            embedding_dim=model.embedding_dim,
            max_seq_length=model.max_seq_length,
            prompts=model.prompts,
            default_prompt=model.default_prompt,
            weights_sha256=model.weights_sha256,
            tokenizer_sha256=model.tokenizer_sha256,
        )

    def artifact(self, section: TargetSection) -> CompiledArtifact:
        """Return a target's artifact with everything that lies beside it."""
        return artifact_of(self.path, self.report, section, self._beside(section))

    def _beside(self, section: TargetSection) -> list[ShippedFile]:
        """Weights may lie in a file of their own, which the entry file does not tell apart."""
        entry = section.artifact.path if section.artifact else ""
        folder = PurePosixPath(entry).parent
        near = [file for file in self.files if PurePosixPath(file.path).parent == folder]
        return [file for file in near if file.path != entry]

    @property
    def reference(self) -> CompiledArtifact:
        """The FP32 graph as an artifact: what the bundle says embeddings should be."""
        near = [file for file in self.files if file.path.startswith(_GRAPH)]
        files = sorted(near, key=lambda file: file.path)
        return CompiledArtifact(
            directory=self.path,
            files=tuple(_file(file) for file in files),
            target="",
            recipe=_REFERENCE,
            built_from=self.report.model.graph.sha256,
            device_requirement=(),
            tool_versions={},
            compile_s=0.0,
        )


_REFERENCE = Recipe(
    name="float32",
    precision="float32",
    float_precision="float32",
    why="the FP32 graph that every artifact was made from",
)


def open_bundle(path: Path) -> OpenBundle:
    """Open a bundle's folder and hash all of it.

    Raises:
        StorageError: there is none, or a file is missing, changed or not the bundle's.
    """
    require_intact(path, name=path)
    return _read(path, path)


@contextmanager
def open_bundles(paths: Iterable[Path]) -> Iterator[tuple[OpenBundle, ...]]:
    """Open bundles and hash all of each; archives lie unpacked until the end of the block.

    Args:
        paths: folders of bundles, or archives of them.

    Raises:
        StorageError: as `open_bundle`; names the archive, not where it was unpacked.
    """
    with ExitStack() as unpacked:
        yield tuple(_read(unpacked.enter_context(opened_bundle(path)), path) for path in paths)


def _read(folder: Path, source: Path) -> OpenBundle:
    return OpenBundle(
        path=folder,
        source=source,
        report=read_report(folder / "reports"),
        files=read_manifest(folder).files,
    )


# ------------------------------------------------------------------------ what runs, and how


def graph_of(bundle: Path, report: Report) -> OnnxArtifact:
    """Return a bundle's FP32 graph as its report describes it."""
    model = report.model
    return OnnxArtifact(
        path=bundle / _GRAPH,
        sha256=model.graph.sha256,
        opset=model.graph.opset,
        inputs=model.graph.inputs,
        outputs=model.graph.outputs,
        model_id=model.id,
        revision=model.revision,
        embedding_dim=model.embedding_dim,
        pooling=model.pooling,
        normalized=model.normalize,
        max_seq_length=model.max_seq_length,
    )


def artifact_of(
    bundle: Path, report: Report, section: TargetSection, beside: Sequence[ShippedFile] = ()
) -> CompiledArtifact:
    """Return a target's artifact as its report describes it.

    Args:
        bundle: folder of the bundle.
        report: about it.
        section: of the target on one device.
        beside: other files that belong to it.

    Raises:
        StorageError: the report names none, or the entry file is another one.
    """
    if section.recipe is None or section.artifact is None:
        raise StorageError(f"{bundle}: its report names no artifact for {section.target}")
    entry = section.artifact
    if _sha256(bundle / entry.path) != entry.sha256:
        raise StorageError(
            f"{bundle / entry.path} is not the file that the bundle's report is about",
            hint="export the bundle again",
        )
    return CompiledArtifact(
        directory=bundle,
        files=tuple(_file(file) for file in (entry, *beside)),
        target=section.target,
        recipe=section.recipe,
        built_from=report.model.graph.sha256,
        device_requirement=section.recipe.requires,
        tool_versions=section.tool_versions,
        compile_s=0.0,
    )


def reported_threads(report: Report, section: TargetSection) -> int:
    """Return the CPU threads that a target's figures were taken with.

    Raises:
        StorageError: the report does not say what it was measured on.
    """
    asked = report.provenance.settings.get("threads", "None")
    if section.hardware is None:
        raise StorageError("the bundle's report does not say what it was measured on")
    return section.hardware.num_cores if asked == "None" else int(asked)


def plan_of(
    bundle: Path,
    report: Report,
    section: TargetSection,
    artifact: CompiledArtifact,
    pad_token_id: int,
) -> RunPlan:
    """Say how a bundle's artifact is run: its own file in the way that its report says.

    Raises:
        StorageError: today's target would run it otherwise.
    """
    target, graph = load_target(section.target), graph_of(bundle, report)
    reported: dict[str, str] = {}
    now: dict[str, str] = {}
    # An emulated CPU was given this machine's cores, however many the CPU in its place has.
    for num_threads in dict.fromkeys((reported_threads(report, section), usable_cores())):
        default = target.run_plan(artifact, graph, pad_token_id, num_threads)
        plan = _in_the_chosen_way(target, default, section, num_threads)
        reported = _reported_way(section, plan)
        now = now or _way(plan.options, plan.length_multiple, plan.max_batch_tokens)
        if _way(plan.options, plan.length_multiple, plan.max_batch_tokens) == reported:
            return plan
    raise StorageError(
        f"{bundle}: its artifact would not be run as its report says",
        why=f"report: {reported}; now: {now}",
        hint="export the bundle again with this version",
    )


def chosen_way(section: TargetSection) -> VariantSection | None:
    """Return the way of running that was chosen; None: no other than the target's was tried."""
    return next((one for one in section.variants if one.status == "chosen"), None)


def _in_the_chosen_way(
    target: Target, default: RunPlan, section: TargetSection, num_threads: int
) -> RunPlan:
    way = chosen_way(section)
    offered = {one.name: one.plan for one in variants_of(target, default, num_threads)}
    return default if way is None else offered.get(way.name, default)


def _reported_way(section: TargetSection, plan: RunPlan) -> dict[str, str]:
    """Describe the way of running of a report, which keeps batches only where ways were tried."""
    batches = chosen_way(section) or plan
    return _way(section.options, batches.length_multiple, batches.max_batch_tokens)


def _way(options: Mapping[str, str], length_multiple: int, max_batch_tokens: int) -> dict[str, str]:
    batches = {"length_multiple": length_multiple, "max_batch_tokens": max_batch_tokens}
    return {**options, **{name: str(value) for name, value in batches.items()}}


def _file(shipped: ShippedFile) -> ArtifactFile:
    return ArtifactFile(path=shipped.path, sha256=shipped.sha256, size_bytes=shipped.size_bytes)


def _sha256(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError as error:
        why = error.strerror or str(error)
        raise StorageError(f"{path} cannot be read", why=why, hint="export again") from error
