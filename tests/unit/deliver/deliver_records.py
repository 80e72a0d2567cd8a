"""One hand-built record with realistic figures, and its special cases."""

from dataclasses import replace
from pathlib import Path

from exporter.values import (
    CandidateResult,
    Compatibility,
    CompatibilityCell,
    CurvePoint,
    EncoderSpec,
    Estimate,
    ExportRecord,
    Fidelity,
    LabelMetric,
    LabelsSummary,
    Latency,
    LayerSensitivity,
    LengthSlice,
    MethodScore,
    MissingMember,
    Neighbour,
    ParityReport,
    Provenance,
    QuantizationSummary,
    ShippedFile,
    SpaceMember,
    Stability,
    TableSensitivity,
    TargetResult,
    TextsSummary,
    TrainingSummary,
    VariantResult,
    WorstText,
)
from targets.contract import (
    Check,
    ExecutedPrecision,
    Hardware,
    Interval,
    LayerOverride,
    OnnxArtifact,
    Recipe,
    RunnerInfo,
    TensorSpec,
)

HOSTILE = (
    "<script>alert(1)</script> | `rm -rf` **b** [x](http://e.vil) @all \x1b[31m\u202ered\nline 2"
)
RIGHT_TO_LEFT = "نموذج عربي"


def sha(digit: str) -> str:
    return digit * 64


def estimate(value: float, low: float, high: float, num_samples: int = 1180) -> Estimate:
    return Estimate(value=value, interval=Interval(low=low, high=high), num_samples=num_samples)


# ------------------------------------------------------------------------------ recipes

FLOAT32 = Recipe(
    name="float32",
    precision="float32",
    float_precision="float32",
    why="the reference that every other recipe is compared with",
)
BFLOAT16 = Recipe(
    name="bfloat16",
    precision="bfloat16",
    float_precision="bfloat16",
    requires=("amx_bf16",),
    why="amx_bf16 multiplies bfloat16 tiles at nine times the float32 rate",
)
INT8 = Recipe(
    name="int8",
    precision="int8",
    float_precision="bfloat16",
    quantizer="nncf_ptq",
    requires=("amx_int8",),
    why="amx_int8 multiplies int8 tiles",
)
INT8_GUARDED = Recipe(
    name="int8-guarded",
    precision="int8",
    float_precision="bfloat16",
    quantizer="nncf_ptq",
    overrides=(
        LayerOverride(pattern="*.output.dense", precision="bfloat16"),
        LayerOverride(pattern="attention.matmul", precision="bfloat16"),
    ),
    requires=("amx_int8",),
    why="the feed-forward outputs are the sensitive layers",
)
INT8_WEIGHTS = Recipe(
    name="int8-weights",
    precision="int8",
    float_precision="bfloat16",
    quantizer="nncf_weight_only",
    why="a quarter of the size where memory counts",
)

# ------------------------------------------------------------------------------ figures


def fidelity(
    mean: float, p1: float, minimum: float, overlap: float, split: str = "dev"
) -> Fidelity:
    return Fidelity(
        evaluation="builtin",
        split=split,
        num_texts=2360,
        num_queries=1180,
        k=10,
        mean_cosine=estimate(mean, mean - 2e-6, mean + 1e-6, 2360),
        p1_cosine=estimate(p1, p1 - 4e-6, p1 + 3e-6, 2360),
        min_cosine=minimum,
        overlap_at_k=estimate(overlap, overlap - 0.0012, overlap + 0.0011),
        labels=(
            LabelMetric(
                name="recall@10",
                reference=0.8771,
                candidate=0.8765,
                difference=estimate(-0.0006, -0.0018, 0.0005),
            ),
            LabelMetric(
                name="ndcg@10",
                reference=0.7312,
                candidate=0.7313,
                difference=estimate(0.0001, -0.0007, 0.0009),
            ),
        ),
        stability=Stability(
            alone_vs_batched=0.999987, padded=0.999991, shuffled=1.0, num_texts=128
        ),
        slices=(
            LengthSlice(
                low=0,
                high=16,
                num_texts=702,
                mean_cosine=0.99999,
                min_cosine=0.9998,
                overlap_at_k=0.9971,
                reference_recall=0.8812,
                recall=0.8801,
            ),
            LengthSlice(
                low=16,
                high=64,
                num_texts=1301,
                mean_cosine=0.99998,
                min_cosine=0.9997,
                overlap_at_k=0.9958,
            ),
            LengthSlice(
                low=64,
                high=257,
                num_texts=357,
                mean_cosine=0.99997,
                min_cosine=minimum,
                overlap_at_k=None,
            ),
        ),
        worst=(
            WorstText(
                text="Return True if the | pipe is open.",
                cosine=minimum,
                num_tokens=9,
                kept=0.7,
                lost=tuple(
                    Neighbour(text=text, reference_rank=rank, candidate_rank=rank + 8)
                    for rank, text in (
                        (4, "Return whether the file descriptor is open."),
                        (8, "Close the pipe."),
                        (10, "Wait until the pipe is drained."),
                    )
                ),
                gained=tuple(
                    Neighbour(text=text, reference_rank=rank + 5, candidate_rank=rank)
                    for rank, text in (
                        (7, "Return True if `fd` is a terminal."),
                        (9, "Return the mode of a pipe."),
                        (10, "Open a pipe to or from a command."),
                    )
                ),
            ),
            WorstText(text="Deprecated alias of `run`.", cosine=minimum, num_tokens=7),
        ),
    )


def latency(
    workload: str, median_ms: float, speedup: float | None, num_samples: int = 700, texts: int = 1
) -> Latency:
    return Latency(
        workload=workload,
        num_samples=num_samples,
        texts_per_sample=texts,
        median_ms=median_ms,
        p90_ms=median_ms * 1.08 if num_samples >= 64 else None,
        p99_ms=median_ms * 1.31 if num_samples >= 662 else None,
        mean_ms=median_ms * 1.02,
        texts_per_s=texts * 1000 / median_ms,
        spread=0.021,
        speedup=estimate(speedup, speedup * 0.97, speedup * 1.025, 12) if speedup else None,
    )


FULL_LATENCY = (
    latency("1x16", 1.634, 1.55),
    latency("1x128", 4.751, 2.84, num_samples=240),
    latency("32x128", 110.2, 3.62, num_samples=24, texts=32),
    latency("mix-single", 2.371, 1.61, num_samples=768),
    latency("mix-batched", 111.3, 2.31, num_samples=12, texts=64),
)

EXECUTED = (
    ExecutedPrecision(op_type="FullyConnected", dtype="bfloat16", count=24, time_share=0.42),
    ExecutedPrecision(op_type="FullyConnected", dtype="bfloat16", count=12, time_share=0.11),
    ExecutedPrecision(op_type="FullyConnected", dtype="float32", count=1, time_share=0.01),
    ExecutedPrecision(op_type="Subgraph", dtype="bfloat16", count=6, time_share=0.25),
    ExecutedPrecision(op_type="Reorder", dtype="float32", count=9),
)

HARDWARE = Hardware(
    architecture="x86_64",
    vendor="GenuineIntel",
    model_name="Intel(R) Xeon(R) Processor @ 2.60GHz",
    microarchitecture="sapphirerapids",
    features=frozenset({"avx2", "avx512_vnni", "amx_bf16", "amx_int8"}),
    num_cores=2,
    memory_bytes=24 * 2**30,
)

RUNNER = RunnerInfo(
    load_s=0.4132,
    first_call_ms=31.72,
    rss_bytes=301_000_000,
    peak_rss_bytes=412_000_000,
    tool_versions={"openvino": "2026.4.1"},
    options={"INFERENCE_PRECISION_HINT": "bf16"},
)


def checks(overlap: Estimate) -> tuple[Check, ...]:
    return (
        Check(name="finite", verdict="pass", value=1.0, threshold=1.0),
        Check(
            name="mean_cosine",
            verdict="pass",
            value=0.999991,
            threshold=0.99,
            interval=Interval(low=0.999989, high=0.999992),
            details={"samples": "2360 texts"},
        ),
        Check(
            name="p1_cosine",
            verdict="pass",
            value=0.999981,
            threshold=0.97,
            interval=Interval(low=0.999977, high=0.999984),
        ),
        Check(
            name="overlap@10",
            verdict="pass",
            value=overlap.value,
            threshold=0.95,
            interval=overlap.interval,
        ),
        Check(name="stability", verdict="pass", value=0.999987, threshold=0.999),
        Check(
            name="speedup",
            verdict="pass",
            value=1.9285,
            threshold=1.0,
            unit="x",
            interval=Interval(low=1.8712, high=1.9764),
        ),
        Check(name="precision", verdict="pass", value=0.973, threshold=0.5, unit="share"),
    )


def candidates() -> tuple[CandidateResult, ...]:
    mixes = (FULL_LATENCY[3], FULL_LATENCY[4])
    return (
        CandidateResult(
            recipe=FLOAT32,
            status="eligible",
            reason="the FP32 baseline itself",
            fidelity=fidelity(1.0, 1.0, 1.0, 1.0),
            size_bytes=91_204_113,
            compile_s=1.2,
            latency=(latency("mix-single", 3.817, None), latency("mix-batched", 257.1, None, 12)),
            on_front=True,
        ),
        CandidateResult(
            recipe=BFLOAT16,
            status="chosen",
            reason="the fastest that keeps the promised quality",
            fidelity=fidelity(0.999991, 0.999981, 0.99991, 0.9964),
            size_bytes=45_618_002,
            compile_s=1.4,
            latency=mixes,
            on_front=True,
        ),
        CandidateResult(
            recipe=INT8,
            status="dropped",
            reason="overlap@10 0.931 lies below 0.95",
            fidelity=fidelity(0.9948, 0.9884, 0.947, 0.931),
            size_bytes=23_311_840,
            compile_s=17.6,
        ),
        CandidateResult(
            recipe=INT8_GUARDED,
            status="eligible",
            reason="slower than bfloat16; "
            "dominated by bfloat16: at least as fast and as close to FP32",
            fidelity=fidelity(0.9986, 0.993, 0.991, 0.9631),
            size_bytes=34_100_422,
            compile_s=18.9,
            latency=(latency("mix-single", 2.501, 1.53), latency("mix-batched", 118.2, 2.17, 12)),
        ),
        CandidateResult(
            recipe=INT8_WEIGHTS,
            status="failed",
            reason="the back end refused the graph\nwhy: unsupported operation Gather-8",
        ),
    )


def variant(name: str, **changes: object) -> VariantResult:
    usual = {
        "status": "eligible",
        "reason": "was tried",
        "why": "it may be faster",
        "num_threads": 2,
        "options": {"NUM_STREAMS": "1"},
        "length_multiple": 16,
        "max_batch_tokens": 2048,
        "min_cosine": 0.999999,
    }
    return VariantResult(name=name, **{**usual, **changes})


VARIANTS = (
    variant(
        "default",
        status="chosen",
        reason="no other way of running it is measurably faster",
        min_cosine=None,
        latency=(latency("mix-single", 2.4, 1.0), latency("mix-batched", 112.0, 1.0, 12)),
    ),
    variant(
        "streams-2",
        options={"NUM_STREAMS": "2"},
        reason="1.02x the default on the mixes",
        latency=(latency("mix-single", 2.6, 0.92), latency("mix-batched", 101.0, 1.12, 12)),
    ),
    variant(
        "buckets-1",
        status="dropped",
        reason="embeddings differ from the default's: cosine 0.99981, asked 0.9999",
        length_multiple=1,
        min_cosine=0.99981,
    ),
)

QUANTIZATION = QuantizationSummary(
    method="smoothed, compensated rounding",
    scores=(
        MethodScore(method="smoothed, compensated rounding", drift=0.0012, chosen=True),
        MethodScore(method="entropy, nearest rounding", drift=0.098, chosen=False),
    ),
    num_texts=270,
    num_tokens=12_430,
    num_held_out=30,
    table_sha256=sha("9"),
    drift=0.0012,
    reduced=("encoder.layer.0.output.dense",),
    sensitivity=tuple(
        LayerSensitivity(layers=layers, drift=drift, work_share=share)
        for number in range(7)
        for layers, drift, share in (
            (
                tuple(
                    f"encoder.layer.{number}.attention.self.{part}"
                    for part in ("query", "key", "value")
                ),
                1e-5 * (number + 1),
                0.06,
            ),
            ((f"encoder.layer.{number}.output.dense",), 2e-4 / (number + 1), 1 / 7 - 0.06),
        )
    ),
)

FULL_QUANTIZATION = replace(
    QUANTIZATION,
    tables=(
        TableSensitivity(
            precision="int8", drift=3.4e-5, num_bytes=11_842_536, float_bytes=46_881_792
        ),
    ),
    training=TrainingSummary(
        texts="questions",
        num_texts=900,
        num_held_out=100,
        num_steps=50,
        batch_tokens=512,
        curve=(
            CurvePoint(step=0, loss=0.0, drift=0.0012),
            CurvePoint(step=50, loss=0.003, drift=0.0008),
        ),
        drift_before=0.0012,
        drift_after=0.0008,
        agreement=0.9997,
        used=True,
        labels=LabelsSummary(
            num_classes=77,
            num_labelled=880,
            num_held_out=98,
            accuracy_fp32=0.9,
            accuracy_before=0.8,
            accuracy_after=0.85,
        ),
    ),
)

TARGET = TargetResult(
    target="openvino",
    device="local",
    status="verified",
    hardware=HARDWARE,
    recipe=BFLOAT16,
    options={"INFERENCE_PRECISION_HINT": "bf16", "NUM_STREAMS": "1"},
    artifact=ShippedFile(path="openvino/openvino_model.xml", sha256=sha("a"), size_bytes=412_339),
    artifact_size_bytes=45_618_002,
    checks=checks(estimate(0.9964, 0.9951, 0.9975)),
    latency=FULL_LATENCY,
    fidelity=fidelity(0.999991, 0.999981, 0.99991, 0.9964, split="test"),
    executed=EXECUTED,
    runner=RUNNER,
    candidates=candidates(),
    variants=VARIANTS,
    quantization=QUANTIZATION,
    tool_versions={"openvino": "2026.4.1", "nncf": "3.4.0"},
)

ENCODER = EncoderSpec(
    model_id="sentence-transformers/all-MiniLM-L6-v2",
    source="package",
    directory=Path("/models/all-MiniLM-L6-v2"),
    revision="1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
    library="sentence_transformers",
    architecture="BertModel",
    model_type="bert",
    pooling="mean",
    normalize=True,
    modules=("Transformer", "Pooling", "Normalize"),
    embedding_dim=384,
    max_seq_length=256,
    weights_sha256=sha("1"),
    tokenizer_sha256=sha("2"),
)


def texts(name: str, digit: str, **figures: object) -> TextsSummary:
    given = {"num_texts": 2360, "num_queries": 1180, "num_documents": 1180, **figures}
    return TextsSummary(
        name=name,
        origin="docstrings of Python 3.11's standard library",
        sha256=sha(digit),
        median_tokens=31.0,
        max_tokens=256,
        **given,
    )


RECORD = ExportRecord(
    verdict="pass",
    exit_code=0,
    encoder=ENCODER,
    graph=OnnxArtifact(
        path=Path("/cache/graph/model.onnx"),
        sha256=sha("3"),
        opset=18,
        inputs=(
            TensorSpec(name="input_ids", dtype="int64", shape=("batch_size", "sequence_length")),
            TensorSpec(
                name="attention_mask", dtype="int64", shape=("batch_size", "sequence_length")
            ),
        ),
        outputs=(
            TensorSpec(name="sentence_embedding", dtype="float32", shape=("batch_size", 384)),
        ),
        model_id=ENCODER.model_id,
        revision=ENCODER.revision,
        embedding_dim=384,
        pooling="mean",
        normalized=True,
        max_seq_length=256,
    ),
    parity=ParityReport(
        min_cosine=0.9999998, max_abs_difference=2.1e-7, num_cases=24, shapes=((1, 1), (8, 256))
    ),
    calibration=texts(
        "builtin", "4", num_texts=300, num_queries=0, num_documents=0, num_truncated=2
    ),
    evaluation_dev=texts("builtin", "5"),
    evaluation_test=texts("builtin", "6", note="both splits search the same documents"),
    targets=(TARGET,),
    provenance=Provenance(
        created_utc="2026-03-02T10:11:12+00:00",
        command="exporter export --target openvino -o out",
        settings={"precision": "auto", "seed": "0", "policy.min_overlap_at_k": "0.95"},
        tool_versions={"embedding-exporter": "0.1.0", "torch": "2.13.0+cpu"},
        stage_s={"graph": 6.214, "artifact": 24.81, "time": 31.07},
        stages_from_cache=("embed the reference",),
        made_utc={"embed the reference": "2026-03-01T09:00:00+00:00"},
    ),
)

# --------------------------------------------------------------------------- compatibility


def member(name: str, space: str, digit: str, **changes: str) -> SpaceMember:
    usual = {"recipe": name.split()[-1], "bundle": "", "numerics": "device"}
    return SpaceMember(
        name=name,
        space_id=f"{'ab' * 8}:{space}",
        artifact_sha256=sha(digit),
        **{**usual, **changes},
    )


def cell(
    queries: str,
    documents: str,
    exchange: str,
    kept: float,
    mirror: float | None,
    **changes: object,
) -> CompatibilityCell:
    usual: dict[str, object] = {
        "decided": True,
        "recall_at_k": estimate(0.87, 0.85, 0.89),
        "recall_difference": estimate(kept - 1.0, kept - 1.01, kept - 0.99),
        "reason": "keeps at least 0.95 of FP32's neighbours",
    }
    figure = estimate(kept, kept - 0.004, min(1.0, kept + 0.004))
    difference = None if mirror is None else estimate(mirror, mirror - 0.004, mirror + 0.004)
    return CompatibilityCell(
        queries_by=queries,
        documents_by=documents,
        exchange=exchange,
        kept=figure,
        overlap_at_k=figure,
        mirror_difference=difference,
        **{**usual, **changes},
    )


BF16_NAME, INT8_NAME = "openvino bfloat16", "onnxruntime-mobile int8 on emulated:cortex-a72"
COMPATIBILITY = Compatibility(
    evaluation=texts("builtin (test)", "6"),
    k=10,
    index="flat",
    store_precision="float32",
    min_drop_in=0.95,
    min_degraded=0.8,
    members=(
        member("float32", "float32", "1"),
        member(BF16_NAME, "float32", "a"),
        member(INT8_NAME, "int8:0123456789ab", "b", numerics="simulated"),
    ),
    cells=(
        cell("float32", "float32", "drop-in", 1.0, None),
        cell("float32", BF16_NAME, "drop-in", 0.9961, -0.0008),
        cell(
            "float32",
            INT8_NAME,
            "degraded",
            0.913,
            -0.041,
            reason="0.909 to 0.917 lies below 0.95",
        ),
        cell(BF16_NAME, "float32", "drop-in", 0.9969, 0.0008),
        cell(BF16_NAME, BF16_NAME, "drop-in", 0.9953, None),
        cell(
            BF16_NAME,
            INT8_NAME,
            "re-index",
            0.51,
            -0.4432,
            reason="0.506 to 0.514 lies below 0.8",
        ),
        cell(INT8_NAME, "float32", "drop-in", 0.954, 0.041),
        cell(
            INT8_NAME,
            BF16_NAME,
            "degraded",
            0.9532,
            0.4432,
            decided=False,
            reason="1180 queries leave 0.949 to 0.957 around 0.95; about 3000 queries would decide",
        ),
        cell(INT8_NAME, INT8_NAME, "degraded", 0.9, None, reason="0.896 to 0.904 lies below 0.95"),
    ),
    missing=(
        MissingMember(
            name="tensorrt", bundle="", reason="there is no NVIDIA driver on this machine"
        ),
    ),
)

# -------------------------------------------------------------------------------- cases


def with_target(target: TargetResult, **changes: object) -> ExportRecord:
    return replace(RECORD, targets=(target,), **changes)


NOT_RUN = with_target(
    TargetResult(
        target="tensorrt",
        device="local",
        status="not_run",
        reason="there is no NVIDIA driver on this machine",
    ),
    verdict="not_run",
    exit_code=3,
)

INCONCLUSIVE = with_target(
    replace(
        TARGET,
        checks=(
            *TARGET.checks[:3],
            Check(
                name="overlap@10",
                verdict="inconclusive",
                value=0.956,
                threshold=0.95,
                interval=Interval(low=0.938, high=0.971),
                reason="60 queries leave 0.938 to 0.971 around 0.95; 540 queries would decide",
            ),
            Check(
                name="speedup",
                verdict="not_run",
                value=None,
                threshold=1.0,
                unit="x",
                reason="no speedup was taken on the mixes",
            ),
        ),
        latency=(),
    ),
    verdict="inconclusive",
    exit_code=3,
)

FAILED = with_target(
    replace(
        TARGET,
        recipe=INT8,
        checks=(
            *TARGET.checks[:2],
            Check(
                name="p1_cosine",
                verdict="fail",
                value=0.969999,
                threshold=0.97,
                interval=Interval(low=0.9691, high=0.96999),
                reason="0.9691 to 0.97 lies below 0.97",
            ),
            Check(
                name="size",
                verdict="fail",
                value=45_618_002.0,
                threshold=40_000_000.0,
                unit="bytes",
                reason="45618002 bytes are more than 40000000",
            ),
        ),
    ),
    verdict="fail",
    exit_code=1,
)

CRASHED = with_target(
    TargetResult(
        target="openvino",
        device="local",
        status="failed",
        reason="the runner crashed\nwhy: Killed\ndo:  give it more memory",
        hardware=HARDWARE,
    ),
    verdict="fail",
    exit_code=4,
)

SEVERAL = replace(
    RECORD,
    workload=texts("requests", "7", num_texts=512, num_queries=0, num_documents=0),
    targets=(TARGET, *NOT_RUN.targets, *FAILED.targets),
    compatibility=COMPATIBILITY,
    verdict="fail",
    exit_code=1,
)

HOSTILE_RECORD = replace(
    with_target(
        replace(
            TARGET,
            device=f"ssh://{RIGHT_TO_LEFT}@host",
            recipe=replace(BFLOAT16, name="x" * 300, why=HOSTILE),
            candidates=(
                CandidateResult(
                    recipe=replace(BFLOAT16, name="x" * 300, why=HOSTILE),
                    status="chosen",
                    reason=HOSTILE,
                    fidelity=fidelity(0.9999, 0.999, 0.99, 0.99),
                    latency=FULL_LATENCY[3:],
                    on_front=True,
                ),
                replace(candidates()[0], recipe=replace(FLOAT32, name=HOSTILE)),
                replace(candidates()[3], recipe=replace(INT8, name=RIGHT_TO_LEFT)),
            ),
            variants=(replace(VARIANTS[0], name="| `way`", reason=HOSTILE),),
            quantization=replace(
                QUANTIZATION,
                method=HOSTILE,
                scores=(MethodScore(method=HOSTILE, drift=0.1, chosen=True),),
                reduced=(HOSTILE, RIGHT_TO_LEFT),
                sensitivity=(
                    LayerSensitivity(layers=(HOSTILE,), drift=0.1, work_share=0.5),
                    LayerSensitivity(layers=("a|b", RIGHT_TO_LEFT), drift=0.0, work_share=0.4),
                    LayerSensitivity(
                        layers=("a.]]><b>&amp;\ufffe", "a.\"'`\x00"), drift=0.2, work_share=0.1
                    ),
                ),
            ),
            checks=(
                Check(
                    name="a|b\nc",
                    verdict="fail",
                    value=0.1,
                    threshold=0.2,
                    unit="<u>",
                    reason=HOSTILE,
                ),
            ),
            fidelity=replace(
                TARGET.fidelity,
                worst=(
                    WorstText(
                        text=HOSTILE,
                        cosine=0.5,
                        num_tokens=4,
                        kept=0.9,
                        lost=(Neighbour(text=HOSTILE, reference_rank=1, candidate_rank=11),),
                        gained=(
                            Neighbour(text=RIGHT_TO_LEFT, reference_rank=40, candidate_rank=2),
                        ),
                    ),
                    WorstText(text=RIGHT_TO_LEFT, cosine=0.6, num_tokens=3),
                ),
            ),
            executed=(ExecutedPrecision(op_type="<Op|`>", dtype="f32\n", count=1),),
        ),
        verdict="fail",
        exit_code=1,
    ),
    encoder=replace(
        ENCODER,
        model_id=f"evil/{HOSTILE}/{'m' * 200}",
        warnings=(HOSTILE,),
        trust_remote_code=True,
        default_prompt="query: ` | ",
    ),
    provenance=replace(RECORD.provenance, command="exporter\n```\n# owned <b>"),
    compatibility=replace(
        COMPATIBILITY,
        members=(member(HOSTILE, "float32", "1"), member(RIGHT_TO_LEFT, "int8:0123456789ab", "b")),
        cells=tuple(
            cell(a, b, "degraded", 0.9, None if a == b else 0.0, reason=HOSTILE)
            for a in (HOSTILE, RIGHT_TO_LEFT)
            for b in (HOSTILE, RIGHT_TO_LEFT)
        ),
        missing=(MissingMember(name="a|b", bundle=HOSTILE, reason=HOSTILE),),
    ),
)

CASES = {
    "pass": RECORD,
    "not_run": NOT_RUN,
    "inconclusive": INCONCLUSIVE,
    "fail": FAILED,
    "crashed": CRASHED,
    "several": SEVERAL,
    "hostile": HOSTILE_RECORD,
}
