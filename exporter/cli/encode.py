"""`exporter encode BUNDLE TEXTS…`: embeddings that say which space they are in."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from exporter.cli.options import QuietOption, ThreadsOption
from targets.errors import ExitCode, TextsError, UsageError

_STDIN = "-"


def encode(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder.")],
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts, or - for lines from stdin.")
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", "-t", help="Whose artifact [the bundle's only one].")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="Append to this .jsonl or .npz file [print JSON lines]."
        ),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", help="A prompt of the model, by name [its default].")
    ] = None,
    threads: ThreadsOption = None,
    quiet: QuietOption = False,
) -> int:
    """Embed texts with a bundle's artifact; every row carries the id of its embedding space."""
    from exporter.cli.progress import make_reporter
    from exporter.deliver.embeddings_file import (
        append_embeddings,
        check_embeddings_file,
        json_lines,
    )
    from exporter.steps.encode import EncodeRequest, encode_texts

    if output is not None:
        check_embeddings_file(output)
    asked = EncodeRequest(
        bundle=bundle,
        texts=_texts(texts or ()),
        target=target,
        output=output,
        prompt=prompt,
        threads=threads,
    )
    with make_reporter(quiet=quiet) as reporter:
        encoded = encode_texts(asked, reporter)
    if output is None:
        for line in json_lines(encoded):
            print(line)
        return int(ExitCode.PASS)
    total = append_embeddings(output, encoded)
    print(f"{output}: {total:,} embeddings   space {encoded.space_id}")
    return int(ExitCode.PASS)


def _texts(given: Sequence[str]) -> tuple[str, ...]:
    if _STDIN not in given:
        return tuple(given)
    if len(given) > 1:
        raise UsageError(
            "texts are named and read from stdin at the same time",
            hint="give - alone, or leave it out",
        )
    try:
        lines = sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise TextsError("stdin is not UTF-8", why=str(error), hint="convert it first") from error
    return (
        tuple(line.rstrip("\r") for line in lines.removesuffix("\n").split("\n")) if lines else ()
    )
