"""Whom each target's artifact meets: what a user of the peers gets for the same runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.contenders import BASELINE, Brief, Contender, peer_contender
from benchmarks.peer_files import onnxruntime_files, openvino_files
from exporter.optimize.workloads import MIX_SINGLE
from exporter.steps.workspace import Workspace
from targets.hashing import sha256_file

OPENVINO_PRESET = "avx512_vnni"
"""The int8 of ONNX Runtime that OpenVINO artifacts are compared with."""

PRESETS = ("avx2", "avx512", "avx512_vnni")
"""x86 presets of `export_dynamic_quantized_onnx_model` (sentence-transformers 5.7)."""

LEVELS = ("O1", "O2", "O3")
"""CPU levels of `export_optimized_onnx_model`; O4 is float16 for GPUs."""

MakePeers = Callable[[Workspace, Brief], tuple[Contender, ...]]

_NOTES = (
    "peers end with token states: mean pooling and normalization behind them (numpy) are "
    "part of their time, as they are of their users'",
    "mixes: peers take 32 texts a batch, longest first, padded to the longest of the batch; "
    "ours takes the batches of its own plan",
    "every artifact runs in this environment's runtimes (run_with), whatever made it (made_with)",
    f"{MIX_SINGLE}-cold is the first pass of a fresh process; shown, not judged",
)
_OPENVINO_NOTES = (
    "st-openvino-int8 is export_static_quantized_openvino_model with its own settings, "
    "calibrated with this project's texts, because its own data set comes from the hub",
    "st-openvino leaves the precision to OpenVINO, which takes bfloat16 where the CPU has it",
)
_ONNXRUNTIME_NOTES = (
    "peers run with ONNX Runtime's own defaults but for the threads, as Optimum opens them",
    "forms whose files are the same bytes take part once",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LineUp:
    """What one target's artifact is compared with, and where things lie by default.

    Args:
        target: its name.
        bundle: our bundle.
        results: file in the folder of results.
        peers: lets the peers export the model; the first is the baseline of every ratio.
        notes: what a reader of the figures must know.
    """

    target: str
    bundle: Path
    results: str
    peers: MakePeers
    notes: tuple[str, ...]


def openvino_peers(work: Workspace, brief: Brief) -> tuple[Contender, ...]:
    """Return ONNX FP32 and int8, OpenVINO by default and NNCF int8."""
    onnx = onnxruntime_files(work, brief.spec, (OPENVINO_PRESET,))
    openvino = openvino_files(work, brief.spec, brief.calibration)
    maker = "sentence-transformers"
    rows = (
        (onnx, "float32", BASELINE, f"{maker} ONNX, FP32"),
        (onnx, OPENVINO_PRESET, "st-onnx-int8", f"{maker} ONNX, int8 {OPENVINO_PRESET}"),
        (openvino, "float32", "st-openvino", f"{maker} OpenVINO, default precision"),
        (openvino, "int8", "st-openvino-int8", f"{maker} OpenVINO, NNCF int8"),
    )
    return tuple(
        peer_contender(brief, files, form, name=name, title=title)
        for files, form, name, title in rows
    )


def onnxruntime_peers(work: Workspace, brief: Brief) -> tuple[Contender, ...]:
    """Return ONNX FP32 and everything that the export helpers make of it for x86 CPUs."""
    files = onnxruntime_files(work, brief.spec, PRESETS, LEVELS)
    described = {
        **{preset: f"dynamic int8 {preset}" for preset in PRESETS},
        **{level: f"FP32 optimized {level}" for level in LEVELS},
    }
    baseline = peer_contender(
        brief, files, "float32", name=BASELINE, title="sentence-transformers ONNX, FP32"
    )
    made = (
        peer_contender(
            brief, files, form, name=f"st-onnx-{form}", title=f"sentence-transformers {what}"
        )
        for form, what in described.items()
    )
    return (baseline, *without_copies(made))


def without_copies(contenders: Iterable[Contender]) -> tuple[Contender, ...]:
    """Let files that are the same bytes take part once, under the first name.

    Time and chance of a false alarm are spent once on them; the title names the others.
    """
    alike: dict[str, list[Contender]] = {}
    for one in contenders:
        alike.setdefault(sha256_file(one.plan.model), []).append(one)
    return tuple(_titled(first, copies) for first, *copies in alike.values())


def _titled(first: Contender, copies: Sequence[Contender]) -> Contender:
    if not copies:
        return first
    names = ", ".join(copy.name for copy in copies)
    return replace(first, title=f"{first.title} (the same bytes: {names})")


LINE_UPS: Mapping[str, LineUp] = {
    one.target: one
    for one in (
        LineUp(
            target="openvino",
            bundle=Path("out"),
            results="peers.json",
            peers=openvino_peers,
            notes=_NOTES + _OPENVINO_NOTES,
        ),
        LineUp(
            target="onnxruntime",
            bundle=Path("out-onnxruntime"),
            results="peers-onnxruntime.json",
            peers=onnxruntime_peers,
            notes=_NOTES + _ONNXRUNTIME_NOTES,
        ),
    )
}
"""Target → its line-up."""
