"""`exporter compatibility BUNDLE…`: which artifacts may share one index."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exporter.cli.options import (
    CacheOption,
    ConfigOption,
    FieldOption,
    JsonOption,
    NoCacheOption,
    QuietOption,
    ThreadsOption,
)

if TYPE_CHECKING:
    from exporter.steps.compatibility import CompatibilityAnswer


def compatibility(
    bundles: Annotated[list[Path], typer.Argument(help="Bundle folders or archives.")],
    old: Annotated[
        list[Path] | None,
        typer.Option(
            "--with",
            help="Bundle that made an index: does the index survive the upgrade? Repeatable.",
        ),
    ] = None,
    evaluation: Annotated[
        str | None,
        typer.Option(
            "--eval", help="BEIR folder, pairs, texts, or `builtin` [what certified the bundles]."
        ),
    ] = None,
    field: FieldOption = None,
    index: Annotated[
        str, typer.Option("--index", help="What searches: flat, hnsw, ivfpq or annoy.")
    ] = "flat",
    store_precision: Annotated[
        str,
        typer.Option("--store-precision", help="Stored vectors: float32, int8 or binary."),
    ] = "float32",
    k: Annotated[int | None, typer.Option("--k", help="Neighbours compared [10].")] = None,
    min_drop_in: Annotated[
        float | None,
        typer.Option("--min-drop-in", help="Share of neighbours a drop-in pair keeps [0.95]."),
    ] = None,
    min_degraded: Annotated[
        float, typer.Option("--min-degraded", help="Below this share: re-index.")
    ] = 0.80,
    simulate: Annotated[
        bool,
        typer.Option(
            "--simulate",
            help="Emulated CPUs by this machine's kernels, on all texts (faster).",
        ),
    ] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the matrix to this JSON file.")
    ] = None,
    threads: ThreadsOption = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of resampling [0].")] = None,
    config: ConfigOption = None,
    cache: CacheOption = None,
    no_cache: NoCacheOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> int:
    """Compare queries by one artifact with documents by another, for all pairs, FP32 included."""
    from exporter.cli.progress import make_reporter
    from exporter.config import load_settings
    from exporter.deliver.storage import replace_file
    from exporter.judge import ExchangePolicy, Index
    from exporter.pipeline import open_workspace
    from exporter.steps.compatibility import Comparison, compare_bundles

    flags = {
        "field": field,
        "threads": threads,
        "seed": seed,
        "cache": cache,
        "use_cache": False if no_cache else None,
    }
    settings = load_settings(config, flags).model_copy(update={"eval": evaluation})
    policy = settings.policy
    asked = Comparison(
        bundles=tuple(bundles),
        old=tuple(old or ()),
        index=Index(kind=index, store_precision=store_precision, seed=settings.seed),  # type: ignore[arg-type]
        policy=ExchangePolicy(
            k=policy.k if k is None else k,
            min_drop_in=policy.min_overlap_at_k if min_drop_in is None else min_drop_in,
            min_degraded=min_degraded,
        ),
        simulate=simulate,
    )
    with (
        make_reporter(quiet=quiet or as_json) as reporter,
        open_workspace(settings, reporter) as work,
    ):
        answer = compare_bundles(work, asked)
    document = _document(answer)
    if output is not None:
        replace_file(output, document)
    _print(answer, document, as_json=as_json)
    return answer.exit_code


def _document(answer: CompatibilityAnswer) -> bytes:
    from exporter.deliver.codec import dump_json

    return dump_json(answer, indent=2) + b"\n"


def _print(answer: CompatibilityAnswer, document: bytes, *, as_json: bool) -> None:
    if as_json:
        typer.echo(document.decode(), nl=False)
        return
    from rich.console import Console

    from exporter.deliver.report import compatibility_table, upgrade_line

    Console().print(compatibility_table(answer.compatibility))
    if answer.upgrade is not None:
        print(upgrade_line(answer.upgrade))
