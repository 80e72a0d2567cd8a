"""ONNX Runtime on x86 servers."""

from __future__ import annotations

import time
from pathlib import Path

from targets.artifacts import artifact_file, built_artifact, plan_to_run
from targets.contract import (
    Availability,
    CompiledArtifact,
    CompileRequest,
    Device,
    Hardware,
    OnnxArtifact,
    Recipe,
    RunPlan,
    RuntimeVariant,
    TargetSpec,
)
from targets.errors import NotInstalledError
from targets.onnxruntime.recipes import (
    BLOCK_FEATURES,
    INT8_FEATURES,
    check_recipe,
    recipes_for,
)
from targets.onnxruntime.sdk import (
    DISTRIBUTION,
    EXTRA,
    INSTALL,
    import_onnxruntime,
    require_loadable,
    versions,
)
from targets.onnxruntime.variants import (
    DEFAULTS,
    LENGTH_MULTIPLE,
    MAX_BATCH_TOKENS,
    variants_of_plan,
)

ADAPTER = Path(__file__).with_name("session.py")
EMBEDDING = "sentence_embedding"
ARCHITECTURE = "x86_64"

_CAPPED = "local:"
_UNCAPPABLE = (
    "ONNX Runtime cannot be held to older instructions, its kernels would be this CPU's: take an "
    "emulated device, for example emulated:haswell"
)

QUANTIZED = "model_quantized"
"""The name that loaders look for when they are told no instruction set."""
_ISA_NAMES = (
    ("avx512_vnni", "model_qint8_avx512_vnni"),
    ("amx_int8", "model_qint8_avx512_vnni"),
    ("avx512f", "model_qint8_avx512"),
    ("avx2", "model_quint8_avx2"),
)
"""Feature → the name of the helpers of sentence-transformers and Optimum; the first counts."""
_BLOCK_NAMES = {"int8": "model_q8", "int4": "model_q4"}
"""Precision → file name of block weights, which are made for no instruction set."""


class OnnxRuntimeTarget:
    """Builds ONNX files in the precisions that an x86 CPU supports."""

    spec = TargetSpec(
        name="onnxruntime",
        vendor="Microsoft",
        runtime="ONNX Runtime",
        precisions=("float32", "int8", "int4"),
        max_opset=23,
        artifact_kind="ONNX",
        extra=EXTRA,
        architectures=(ARCHITECTURE,),
        distributions=(DISTRIBUTION,),
    )

    def probe(self, device: Device) -> Availability:
        """Say whether ONNX Runtime is here, to build with, and on the device; never raises."""
        try:
            import_onnxruntime()
            hardware = device.hardware()
            there = device.distributions(self.spec.distributions)
        except NotInstalledError as error:
            return Availability(ok=False, missing=(f"{error.what}: {INSTALL} ({error.why})",))
        except Exception as error:  # the contract: a probe answers, whatever a device does
            found = f"device {device.name} does not say what it is: {error}"
            return Availability(ok=False, missing=(found,), tool_versions=versions())
        if device.name.startswith(_CAPPED):
            return Availability(ok=False, missing=(_UNCAPPABLE,), tool_versions=versions())
        lacking = [name for name in self.spec.distributions if name not in there]
        return Availability(
            ok=not lacking,
            missing=tuple(f"{device.name} lacks {name}: pip install {name}" for name in lacking),
            device_name=hardware.model_name,
            fingerprint=hardware.fingerprint,
            features=_telling_features(hardware),
            tool_versions=versions() | {f"{name} there": v for name, v in there.items()},
        )

    def candidates(self, graph: OnnxArtifact | None, hardware: Hardware) -> tuple[Recipe, ...]:
        """Return the recipes for this CPU, the FP32 baseline first."""
        return recipes_for(hardware)

    def compile(self, request: CompileRequest) -> CompiledArtifact:
        """Build the ONNX file of one recipe and prove that ONNX Runtime takes it.

        The same request gives the same bytes: nothing in it is random.

        Raises:
            CompileError: the recipe is none of ours, one of its overrides matches no layer,
                or ONNX Runtime refuses the graph.
            CalibrationError: the plans' file is damaged.
            NotInstalledError: ONNX Runtime is missing.
            StorageError: the file cannot be written.
        """
        # onnx is loaded here, so that what a target is costs no import of it
        from targets.onnxruntime.build import build_onnx

        check_recipe(request.recipe)
        started = time.perf_counter()
        path = request.output_dir / f"{file_stem(request.recipe, request.hardware)}.onnx"
        build_onnx(request, path)
        require_loadable(path, request.recipe.name)
        external = path.with_name(f"{path.name}_data")
        paths = [path, *([external] if external.is_file() else [])]
        files = [artifact_file(one) for one in paths]
        return built_artifact(request, self.spec.name, files, versions(), started)

    def run_plan(
        self, artifact: CompiledArtifact, graph: OnnxArtifact, pad_token_id: int, num_threads: int
    ) -> RunPlan:
        """Say what the runner must load, with every option that changes results or speed."""
        return plan_to_run(
            artifact,
            graph,
            pad_token_id,
            adapter=ADAPTER,
            output=EMBEDDING,
            options=dict(DEFAULTS),
            length_multiple=LENGTH_MULTIPLE,
            max_batch_tokens=MAX_BATCH_TOKENS,
        )

    def variants(self, plan: RunPlan, num_threads: int) -> tuple[RuntimeVariant, ...]:
        """Vary what does not change the artifact; figures are in `docs/onnxruntime.md`."""
        return variants_of_plan(plan, num_threads)

    def ship(self, artifact: CompiledArtifact) -> tuple[tuple[str, str], ...]:
        """Put the file under its conventional name, a quantized one also under the general one.

        `onnx/model.onnx` stays the FP32 graph. External data keeps its name, which the graph
        holds, and serves both.
        """
        places = [(file.path, f"onnx/{file.path}") for file in artifact.files]
        general = (artifact.files[0].path, f"onnx/{QUANTIZED}.onnx")
        if artifact.recipe.quantizer != "none" and general not in places:
            places.append(general)
        return tuple(places)


def file_stem(recipe: Recipe, hardware: Hardware) -> str:
    """Return the conventional file name of a recipe on one CPU, without its suffix."""
    if recipe.quantizer == "none":
        return "model_optimized"
    if recipe.quantizer == "matmul_nbits":
        return _BLOCK_NAMES[recipe.precision]
    names = (name for feature, name in _ISA_NAMES if feature in hardware.features)
    return next(names, QUANTIZED)


def _telling_features(hardware: Hardware) -> tuple[str, ...]:
    """Return the features that decide on recipes, out of the hundred that a CPU lists."""
    return tuple(sorted({*INT8_FEATURES, *BLOCK_FEATURES} & hardware.features))
