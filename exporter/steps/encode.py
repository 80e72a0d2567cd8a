"""Texts embedded with a bundle's artifact, together with the space that they are in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from exporter.deliver.embeddings_file import EncodedTexts, check_same_space
from exporter.deliver.report.document import TargetSection
from exporter.deliver.spaces import space_of
from exporter.progress import Reporter
from exporter.source.tokenizer import load_tokenizer
from exporter.steps.bundled import OpenBundle, open_bundle
from exporter.steps.execution import Built, Stand
from exporter.steps.members import built_of, stand_on
from targets.contract import LOCAL, LOCAL_CUDA, Batching, FloatArray, Progress, TokenSequences
from targets.errors import NonFiniteError, UsageError
from targets.registry import load_target, open_device


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeRequest:
    """What is embedded with what.

    Args:
        bundle: its folder.
        texts: at least one.
        target: whose artifact; None: the only one of the bundle.
        output: file that the embeddings go into; None: none.
        prompt: name of a prompt of the model; None: its default.
        threads: CPU threads; None: as many as there are.
    """

    bundle: Path
    texts: tuple[str, ...]
    target: str | None = None
    output: Path | None = None
    prompt: str | None = None
    threads: int | None = None


def encode_texts(asked: EncodeRequest, reporter: Reporter) -> EncodedTexts:
    """Embed texts on this machine with an artifact, run as the bundle's report says.

    What was measured elsewhere says nothing of this machine's kernels: on another device than
    the artifact was verified on, it embeds into a space of its own.

    Raises:
        StorageError: the bundle is damaged.
        UsageError: there are no texts, the bundle has no such artifact or prompt, or the output
            holds embeddings of another space.
        NotInstalledError: the runtime is missing.
        DeviceError, NonFiniteError: it does not run.
    """
    if not asked.texts:
        raise UsageError("there are no texts", hint="name some, or give - and lines on stdin")
    bundle = open_bundle(asked.bundle)
    section = _section(bundle, asked.target)
    stand = stand_on(load_target(section.target), open_device(_here(section)), asked.threads)
    here = stand.hardware.fingerprint
    if section.hardware is None or section.hardware.fingerprint != here:
        reporter.note(
            f"the artifact was verified on {section.device}, not on this machine: its embeddings "
            "here get a space of their own (exporter compatibility compares the two)"
        )
    space_id = space_of(bundle.report.model, section, fingerprint=here)
    if asked.output is not None:
        check_same_space(asked.output, space_id, bundle.report.model.embedding_dim)
    tokenizer = load_tokenizer(replace(bundle.spec, default_prompt=_prompt(bundle, asked.prompt)))
    tokens = tokenizer.encode(asked.texts)
    built = built_of(bundle, section, tokens.pad_token_id)
    title = f"embed {len(asked.texts)} texts with {section.target} {built.recipe.name}"
    with reporter.step(title) as progress:
        rows = _embed(stand, built, tokens, progress)
    return EncodedTexts(
        texts=asked.texts,
        embeddings=rows,
        space_id=space_id,
        artifact_sha256=built.artifact.files[0].sha256,
    )


def _here(section: TargetSection) -> str:
    """Return this machine's device for an artifact: the GPU for one that was made for it."""
    return LOCAL_CUDA if section.device == LOCAL_CUDA else LOCAL


def _embed(stand: Stand, built: Built, tokens: TokenSequences, progress: Progress) -> FloatArray:
    runner = stand.device.start(built.plan, built.num_threads or stand.num_threads)
    try:
        rows = runner.embed(tokens, Batching(), progress)
    finally:
        runner.close()
    if not np.isfinite(rows).all():
        raise NonFiniteError(f"{built.recipe.name}: embeddings contain NaN or infinity")
    return rows


def _section(bundle: OpenBundle, target: str | None) -> TargetSection:
    """Return what the report says of the artifact, of this very device where there are several."""
    verified = [one for one in bundle.report.targets if one.status == "verified" and one.artifact]
    fitting = [one for one in verified if target in (None, one.target)]
    names = list(dict.fromkeys(one.target for one in fitting))
    if len(names) != 1:
        raise _no_choice(bundle, target, verified)
    return min(fitting, key=lambda one: one.device != LOCAL)


def _no_choice(
    bundle: OpenBundle, target: str | None, verified: Sequence[TargetSection]
) -> UsageError:
    there = ", ".join(dict.fromkeys(one.target for one in verified))
    if target is None and verified:
        return UsageError(
            f"{bundle.name} holds artifacts of several targets",
            why=f"{there}; each may embed into a space of its own",
            hint=f"name one: --target {verified[0].target}",
        )
    wanted = f" for {target}" if target else ""
    return UsageError(
        f"{bundle.name} holds no verified artifact{wanted}",
        why=f"verified: {there or 'none'}",
        hint=f"--target {verified[0].target}" if verified else "export the model first",
    )


def _prompt(bundle: OpenBundle, name: str | None) -> str:
    model = bundle.report.model
    if name is None:
        return model.default_prompt
    if name not in model.prompts:
        raise UsageError(
            f"--prompt {name}: the model has no such prompt",
            why=f"it has {', '.join(model.prompts) or 'none'}",
            hint="leave --prompt out for the model's default",
        )
    return model.prompts[name]
