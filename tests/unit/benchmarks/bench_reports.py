"""Reports of bundles with what `benchmarks.bundles` reads of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from exporter.deliver.report import Report
from exporter.deliver.report.document import (
    GraphSection,
    HardwareSection,
    ModelSection,
    TargetSection,
    VariantSection,
)
from exporter.values import Provenance, ShippedFile
from targets.contract import Hardware, Recipe, TensorSpec
from targets.hashing import sha256_file

ENTRY = "openvino/openvino_model.xml"
HARDWARE = Hardware(
    architecture="x86_64",
    vendor="GenuineIntel",
    model_name="A processor",
    microarchitecture="sapphirerapids",
    features=frozenset({"avx2"}),
    num_cores=4,
    memory_bytes=2**34,
)
RECIPE = Recipe(name="float32", precision="float32", float_precision="float32", why="the baseline")


def write_entry(bundle: Path) -> None:
    (bundle / ENTRY).parent.mkdir(parents=True)
    (bundle / ENTRY).write_text("<net/>")


def section(bundle: Path, target="openvino", device="local", **changes) -> TargetSection:
    """A target that was verified: the recipe of FP32, run as the target itself runs it."""
    about = HARDWARE
    described = {
        "target": target,
        "device": device,
        "status": "verified",
        "recipe": RECIPE,
        "artifact": ShippedFile(path=ENTRY, sha256=sha256_file(bundle / ENTRY), size_bytes=6),
        "checks": (),
        "latency": None,
        "fidelity": None,
        "executed_precisions": {},
        "candidates": (),
        "variants": (),
        "quantization": None,
        "reason": "",
        "artifact_size_bytes": 6,
        "options": {},
        "hardware": HardwareSection(
            fingerprint=about.fingerprint,
            architecture=about.architecture,
            vendor=about.vendor,
            model_name=about.model_name,
            microarchitecture=about.microarchitecture,
            num_cores=about.num_cores,
            memory_bytes=about.memory_bytes,
            features=tuple(about.features),
        ),
        "runner": None,
        "tool_versions": {},
    }
    return TargetSection(**{**described, **changes})


def variant(name: str, plan, *, status="chosen", num_threads=4, **changes) -> VariantSection:
    """A way of running that was tried; by default the plan's own."""
    described = {
        "options": plan.options,
        "length_multiple": plan.length_multiple,
        "max_batch_tokens": plan.max_batch_tokens,
        **changes,
    }
    return VariantSection(
        name=name,
        status=status,
        reason="",
        why="",
        num_threads=num_threads,
        min_cosine=None,
        latency=None,
        **described,
    )


def report(targets: Sequence[TargetSection], **settings: str) -> Report:
    """A report about those targets; nobody here reads its other parts."""
    names = ("input_ids", "attention_mask")
    inputs = tuple(TensorSpec(name=name, dtype="int64", shape=("b", "s")) for name in names)
    graph = GraphSection(sha256="0" * 64, opset=20, inputs=inputs, outputs=(), parity=None)
    model = ModelSection(
        id="a/model",
        source="local",
        revision=None,
        library="sentence_transformers",
        architecture="BertModel",
        model_type="bert",
        modules=(),
        pooling="mean",
        normalize=True,
        embedding_dim=8,
        max_seq_length=64,
        prompts={},
        default_prompt="",
        weights_sha256="0" * 64,
        tokenizer_sha256="0" * 64,
        trust_remote_code=False,
        warnings=(),
        graph=graph,
    )
    provenance = Provenance(
        created_utc="2026-01-01T00:00:00+00:00",
        command="export",
        settings=settings,
        tool_versions={},
        stage_s={},
        stages_from_cache=(),
    )
    return Report(
        verdict="pass",
        exit_code=0,
        model=model,
        evaluation=None,
        targets=tuple(targets),
        provenance=provenance,
        calibration=None,
        workload=None,
    )
