"""ONNX Runtime on ARM: servers, phones, single-board computers.

An artifact holds the same graph twice. The `.ort` is what phones ship and what is run, measured
and counted here; the `.onnx` beside it is for ARM servers, whose loaders (sentence-transformers,
Optimum) read nothing else.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from targets.artifacts import artifact_file, built_artifact
from targets.contract import (
    CompiledArtifact,
    CompileRequest,
    Hardware,
    OnnxArtifact,
    Precision,
    Recipe,
    RunPlan,
    RuntimeVariant,
    TargetSpec,
)
from targets.errors import StorageError
from targets.onnxruntime.recipes import recipes_for
from targets.onnxruntime.sdk import DISTRIBUTION, EXTRA, import_onnxruntime, versions
from targets.onnxruntime.target import OnnxRuntimeTarget
from targets.onnxruntime.variants import OPTIMIZATION, variants_of_plan

ARCHITECTURE = "aarch64"

ORT_MODEL = "ort/model.ort"
"""In a folder of its own: what lies beside an entry file travels to the device with it."""
ONNX_MODEL = "onnx/model.onnx"
OPERATORS_CONFIG = "minimal-build/required_operators_and_types.config"
USABILITY_REPORT = "minimal-build/usability.txt"

_STEMS: Mapping[Precision, str] = {
    "float32": "model",
    "int8": "model_qint8_arm64",
    "int4": "model_qint4_arm64",
}
"""Precision → file name in the bundle; int8's is that of sentence-transformers and Optimum."""

_MAX_BATCH_TOKENS = 1024
"""Half of what servers take: activations are most of the memory that a run adds to the weights."""


class MobileTarget(OnnxRuntimeTarget):
    """Builds ORT format and ONNX for ARM CPUs; probes as its sister for x86 does."""

    spec = TargetSpec(
        name="onnxruntime-mobile",
        vendor="Microsoft",
        runtime="ONNX Runtime",
        precisions=("float32", "int8", "int4"),
        max_opset=23,
        artifact_kind="ORT format and ONNX",
        extra=EXTRA,
        architectures=(ARCHITECTURE,),
        distributions=(DISTRIBUTION,),
    )

    def candidates(self, graph: OnnxArtifact | None, hardware: Hardware) -> tuple[Recipe, ...]:
        """Return the recipes for this CPU, the FP32 baseline first.

        Another architecture's machine gets those of an ARM CPU without extensions: the
        artifacts run there as well, but are not made for it.
        """
        arm = hardware if hardware.architecture == ARCHITECTURE else _plain_arm(hardware)
        return recipes_for(arm)

    def compile(self, request: CompileRequest) -> CompiledArtifact:
        """Build the ORT format, the ONNX file, and what a minimal build needs.

        The same request gives the same bytes.

        Raises:
            CompileError: the recipe is none of ours, one of its overrides matches no layer,
                or ONNX Runtime refuses the graph.
            CalibrationError: the plans' file is damaged.
            NotInstalledError: ONNX Runtime is missing.
            StorageError: the files cannot be written.
        """
        import_onnxruntime()
        started = time.perf_counter()
        try:
            with _graph(request) as graph:
                paths = _write(graph, request)
        except OSError as error:
            raise StorageError(
                f"{request.output_dir} cannot be written", why=str(error), hint="free space"
            ) from error
        files = [
            artifact_file(
                path,
                request.output_dir,
                on_device=path.relative_to(request.output_dir).as_posix() == ORT_MODEL,
            )
            for path in paths
        ]
        return built_artifact(request, self.spec.name, files, versions(), started)

    def run_plan(
        self, artifact: CompiledArtifact, graph: OnnxArtifact, pad_token_id: int, num_threads: int
    ) -> RunPlan:
        """Say what the runner must load: the ORT format, whose graph is optimized already."""
        plan = super().run_plan(artifact, graph, pad_token_id, num_threads)
        options = {**plan.options, OPTIMIZATION: "disabled"}
        return replace(plan, options=options, max_batch_tokens=_MAX_BATCH_TOKENS)

    def variants(self, plan: RunPlan, num_threads: int) -> tuple[RuntimeVariant, ...]:
        """Vary what servers vary, but not the level of a graph that nobody optimizes there."""
        level = plan.options[OPTIMIZATION]
        common = variants_of_plan(plan, num_threads)
        kept = tuple(one for one in common if one.plan.options[OPTIMIZATION] == level)
        return (*_fewer_threads(plan, num_threads), *kept)

    def ship(self, artifact: CompiledArtifact) -> tuple[tuple[str, str], ...]:
        """Put the models under their usual names, and beside them what a minimal build needs.

        FP32 has no `.onnx` of its own: the bundle's `onnx/model.onnx` is that graph.
        """
        stem = _STEMS[artifact.recipe.precision]
        places = {
            ORT_MODEL: f"onnx/{stem}.ort",
            ONNX_MODEL: f"onnx/{stem}.onnx",
            OPERATORS_CONFIG: f"{self.spec.name}/{Path(OPERATORS_CONFIG).name}",
            USABILITY_REPORT: f"{self.spec.name}/{Path(USABILITY_REPORT).name}",
        }
        return tuple((file.path, places[file.path]) for file in artifact.files)


def _fewer_threads(plan: RunPlan, num_threads: int) -> tuple[RuntimeVariant, ...]:
    if num_threads < 2:
        return ()
    why = "where half of the cores are small ones, the others need not wait for them"
    half = num_threads // 2
    return (RuntimeVariant(name="half-the-threads", plan=plan, num_threads=half, why=why),)


def _plain_arm(hardware: Hardware) -> Hardware:
    return replace(hardware, architecture=ARCHITECTURE, features=frozenset({"asimd"}))


@contextmanager
def _graph(request: CompileRequest) -> Iterator[Path]:
    """Yield the ONNX file of a recipe, in a folder that is removed again."""
    # onnx is loaded here, so that what a target is costs no import of it
    from targets.onnxruntime.build import build_onnx

    with tempfile.TemporaryDirectory(prefix="onnxruntime-mobile-") as folder:
        path = Path(folder) / Path(ONNX_MODEL).name
        build_onnx(request, path)
        yield path


def _write(graph: Path, request: CompileRequest) -> list[Path]:
    """Fill the output folder, the entry file first."""
    from targets.onnxruntime.ort_format import convert
    from targets.onnxruntime.usability import write_usability

    names = (ORT_MODEL, OPERATORS_CONFIG, USABILITY_REPORT, ONNX_MODEL)
    paths = [request.output_dir / name for name in names]
    for path in paths[:3]:
        path.parent.mkdir(exist_ok=True)
    ort_model, config, report, onnx_model = paths
    convert(graph, ort_model, config)
    write_usability(graph, report)
    if request.recipe.quantizer == "none":
        return paths[:3]
    onnx_model.parent.mkdir()
    shutil.copyfile(graph, onnx_model)
    return paths
