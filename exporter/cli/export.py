"""`exporter export`: the whole job in one line."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from exporter.cli.options import CUDA_API_HELP

_MODEL = "model"
_TEXTS = "texts"
_RUN = "run"
_POLICY = "policy"
_SEARCH = "search"
_RECIPES = "recipes"


def _option(*names: str, help: str, panel: str) -> Any:  # noqa: ANN401  # typer's is untyped
    return typer.Option(*names, help=help, rich_help_panel=panel)


def export(
    target: Annotated[
        list[str] | None,
        _option("--target", "-t", help="Target; repeatable, or `all`.", panel=_RUN),
    ] = None,
    output: Annotated[
        Path | None, _option("-o", "--output", help="Bundle folder [out].", panel=_RUN)
    ] = None,
    model: Annotated[
        str | None,
        _option("-m", "--model", help="Folder or hub id [all-MiniLM-L6-v2].", panel=_MODEL),
    ] = None,
    revision: Annotated[
        str | None, _option("--revision", help="Commit or tag on the hub.", panel=_MODEL)
    ] = None,
    pooling: Annotated[
        str | None,
        _option("--pooling", help="Pooling of a plain transformers model [mean].", panel=_MODEL),
    ] = None,
    max_seq_length: Annotated[
        int | None, _option("--max-seq-length", help="Cut texts at this.", panel=_MODEL)
    ] = None,
    trust_remote_code: Annotated[
        bool, _option("--trust-remote-code", help="Run the model's own code.", panel=_MODEL)
    ] = False,
    precision: Annotated[
        str | None,
        _option(
            "--precision",
            help="auto, or a recipe's name (float32, bfloat16, int8, …) [auto].",
            panel=_RUN,
        ),
    ] = None,
    objective: Annotated[
        str | None,
        _option(
            "--objective",
            help="What the choice is for: balanced, latency, throughput or size [balanced].",
            panel=_SEARCH,
        ),
    ] = None,
    workload: Annotated[
        str | None,
        _option(
            "--workload",
            help="What is timed: queries, documents, mixed, or a file of texts [mixed].",
            panel=_SEARCH,
        ),
    ] = None,
    search_budget: Annotated[
        float | None,
        _option("--search-budget", help="Seconds for the tournament [no limit].", panel=_SEARCH),
    ] = None,
    layer_precision: Annotated[
        list[str] | None,
        _option(
            "--layer-precision",
            help="PATTERN=PRECISION of layers, by their module path; repeatable.",
            panel=_RECIPES,
        ),
    ] = None,
    calibrator: Annotated[
        str | None,
        _option(
            "--calibrator",
            help="Ranges of activations: minmax, percentile, entropy, mse or auto [auto].",
            panel=_RECIPES,
        ),
    ] = None,
    smoothing: Annotated[
        str | None,
        _option(
            "--smoothing",
            help="Outliers moved from activations into weights: off, on or auto [auto].",
            panel=_RECIPES,
        ),
    ] = None,
    embeddings: Annotated[
        str | None,
        _option(
            "--embeddings",
            help="Embedding tables in float32, float16 or int8 [as each recipe says].",
            panel=_RECIPES,
        ),
    ] = None,
    outlier_threshold: Annotated[
        float | None,
        _option(
            "--outlier-threshold",
            help="Activations that LLM.int8 multiplies in float16 (target torch) [6].",
            panel=_RECIPES,
        ),
    ] = None,
    attention_int8: Annotated[
        bool,
        _option(
            "--attention-int8",
            help="Attention in int8 too, where TensorRT fuses it (512 tokens at most).",
            panel=_RECIPES,
        ),
    ] = False,
    calibration: Annotated[
        str | None,
        _option("--calibration", help="Calibration texts [built-in].", panel=_TEXTS),
    ] = None,
    num_samples: Annotated[
        int | None, _option("--num-samples", help="Calibration texts used [300].", panel=_TEXTS)
    ] = None,
    qat: Annotated[
        bool,
        _option(
            "--qat",
            help="Train the static int8 form on FP32's embeddings too; no labels.",
            panel=_RECIPES,
        ),
    ] = False,
    training: Annotated[
        str | None,
        _option("--training", help="Texts for --qat [those of --calibration].", panel=_TEXTS),
    ] = None,
    training_labels: Annotated[
        str | None,
        _option("--training-labels", help="Field of their classes [none].", panel=_TEXTS),
    ] = None,
    training_steps: Annotated[
        int | None,
        _option("--training-steps", help="Batches of --qat at most [600].", panel=_RECIPES),
    ] = None,
    learning_rate: Annotated[
        float | None,
        _option("--learning-rate", help="Of --qat, in steps of a weight [0.006].", panel=_RECIPES),
    ] = None,
    evaluation: Annotated[
        str | None,
        _option("--eval", help="BEIR folder, pairs or texts [built-in].", panel=_TEXTS),
    ] = None,
    field: Annotated[
        str | None, _option("--field", help="Field or column of the text [text].", panel=_TEXTS)
    ] = None,
    device: Annotated[
        list[str] | None,
        _option(
            "--device",
            help="Where to run: local, local:ISA, emulated:CPU, ssh://USER@HOST, each also as "
            "TARGET=DEVICE; repeatable [local].",
            panel=_RUN,
        ),
    ] = None,
    compute_capability: Annotated[
        list[str] | None,
        _option(
            "--compute-capability",
            help="GPU that is prepared for where none is here, 8.9 or sm_89; repeatable [8.9].",
            panel=_RUN,
        ),
    ] = None,
    cuda_api: Annotated[str | None, _option("--cuda-api", help=CUDA_API_HELP, panel=_RUN)] = None,
    threads: Annotated[
        int | None, _option("--threads", help="CPU threads [all cores].", panel=_RUN)
    ] = None,
    seed: Annotated[int | None, _option("--seed", help="Seed [0].", panel=_RUN)] = None,
    min_overlap: Annotated[
        float | None,
        _option("--min-overlap", help="Share of FP32's k neighbours to keep.", panel=_POLICY),
    ] = None,
    min_recall: Annotated[
        float | None,
        _option("--min-recall", help="Share of FP32's labelled recall@k to keep.", panel=_POLICY),
    ] = None,
    max_drift: Annotated[
        float | None,
        _option("--max-drift", help="Mean cosine drift allowed, 1 - cosine.", panel=_POLICY),
    ] = None,
    max_size: Annotated[
        str | None,
        _option("--max-size", help="Largest artifact: 24MB, 24MiB or bytes.", panel=_POLICY),
    ] = None,
    config: Annotated[
        Path | None, _option("--config", help="Configuration file [exporter.toml].", panel=_RUN)
    ] = None,
    cache: Annotated[
        Path | None, _option("--cache", help="Cache folder [the user's].", panel=_RUN)
    ] = None,
    no_cache: Annotated[
        bool, _option("--no-cache", help="Do everything anew, keep nothing.", panel=_RUN)
    ] = False,
    quiet: Annotated[bool, _option("--quiet", "-q", help="No progress.", panel=_RUN)] = False,
    as_json: Annotated[
        bool, _option("--json", help="Print the JSON report only.", panel=_RUN)
    ] = False,
) -> int:
    """Export, calibrate, compile, measure, verify, report; the whole job."""
    from exporter.cli.output import print_result
    from exporter.cli.progress import make_reporter
    from exporter.config import load_settings
    from exporter.pipeline import run_export

    policy: dict[str, float | str | None] = {
        "min_overlap_at_k": min_overlap,
        "min_mean_cosine": None if max_drift is None else 1.0 - max_drift,
        "min_recall": min_recall,
        "max_size_bytes": max_size,
    }
    flags = {
        "target": tuple(target or ()),
        "output": output,
        "model": model,
        "revision": revision,
        "pooling": pooling,
        "max_seq_length": max_seq_length,
        "trust_remote_code": trust_remote_code or None,
        "precision": precision,
        "objective": objective,
        "workload": workload,
        "search_budget_s": search_budget,
        "layer_precision": tuple(layer_precision or ()),
        "calibrator": calibrator,
        "smoothing": smoothing,
        "embeddings": embeddings,
        "outlier_threshold": outlier_threshold,
        "attention_int8": attention_int8 or None,
        "calibration": calibration,
        "num_samples": num_samples,
        "qat": qat or None,
        "training": training,
        "training_labels": training_labels,
        "training_steps": training_steps,
        "learning_rate": learning_rate,
        "eval": evaluation,
        "field": field,
        "device": tuple(device or ()) or None,
        "compute_capability": tuple(compute_capability or ()) or None,
        "cuda_api": cuda_api,
        "threads": threads,
        "seed": seed,
        "cache": cache,
        "use_cache": False if no_cache else None,
        "policy": {name: value for name, value in policy.items() if value is not None} or None,
    }
    settings = load_settings(config, flags)
    with make_reporter(quiet=quiet or as_json) as reporter:
        record = run_export(settings, reporter, command=shlex.join(["exporter", *sys.argv[1:]]))
    print_result(settings.output, as_json=as_json)
    return record.exit_code
