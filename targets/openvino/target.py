"""OpenVINO on x86 and ARM CPUs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from targets.artifacts import artifact_file, built_artifact, plan_to_run
from targets.contract import (
    Availability,
    CompiledArtifact,
    CompileRequest,
    Device,
    Hardware,
    OnnxArtifact,
    Precision,
    Recipe,
    RunPlan,
    RuntimeVariant,
    TargetSpec,
)
from targets.errors import NotInstalledError
from targets.hardware.precisions import BACKINGS
from targets.openvino.ir import GROUP_SIZE, read_graph, write_ir
from targets.openvino.layers import find_layers, nodes_kept_float, nodes_matching
from targets.openvino.quantize import calibration_batches, compress_weights, quantize
from targets.openvino.recipes import ACTIVATION_GROUPS, check_recipe, recipes_for
from targets.openvino.sdk import EXTRA, INSTALL, import_openvino, is_installed, versions
from targets.openvino.variants import variants_of_plan

ADAPTER = Path(__file__).with_name("session.py")
EMBEDDING = "sentence_embedding"
LOADER_OPTIONS = "ov_config.json"

_HINTS: Mapping[Precision, str] = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
_LENGTH_MULTIPLE = 16
_MAX_BATCH_TOKENS = 2048


class OpenVinoTarget:
    """Builds OpenVINO IR in the precisions that a CPU supports."""

    spec = TargetSpec(
        name="openvino",
        vendor="Intel",
        runtime="OpenVINO",
        precisions=("float32", "bfloat16", "float16", "int8"),
        max_opset=23,
        artifact_kind="OpenVINO IR",
        extra=EXTRA,
        distributions=("openvino",),
    )

    def probe(self, device: Device) -> Availability:
        """Say whether OpenVINO works and what the device is; never raises.

        Without NNCF the target is available, but `missing` says that NNCF's int8 recipes
        cannot be built and `candidates` leaves them out.
        """
        try:
            import_openvino()
            hardware = device.hardware()
            there = device.distributions(self.spec.distributions)
        except NotInstalledError as error:
            return Availability(ok=False, missing=(_missing("openvino", error.why),))
        except Exception as error:  # the contract: a probe answers, whatever a device does
            found = f"device {device.name} does not say what it is: {error}"
            return Availability(ok=False, missing=(found,), tool_versions=versions())
        if not there:
            lacking = f"{device.name} has no openvino: pip install openvino there"
            return Availability(ok=False, missing=(lacking,), tool_versions=versions())
        return Availability(
            ok=True,
            missing=() if is_installed("nncf") else (f"no int8 by NNCF: {_missing('nncf')}",),
            device_name=hardware.model_name,
            fingerprint=hardware.fingerprint,
            features=_telling_features(hardware),
            tool_versions=versions(),
        )

    def candidates(self, graph: OnnxArtifact | None, hardware: Hardware) -> tuple[Recipe, ...]:
        """Return the recipes for this CPU, the FP32 baseline first."""
        recipes = recipes_for(hardware)
        if is_installed("nncf"):
            return recipes
        return tuple(recipe for recipe in recipes if not recipe.quantizer.startswith("nncf"))

    def compile(self, request: CompileRequest) -> CompiledArtifact:
        """Build the IR of one recipe into `request.output_dir`.

        The same request gives the same bytes: nothing in it is random (`request.seed` has
        nothing to decide), names are stable, ranges do not depend on the order of texts.

        Raises:
            CompileError: the recipe is none of ours, one of its overrides matches no layer,
                or OpenVINO or NNCF refuse the graph.
            NotInstalledError: OpenVINO or NNCF is missing.
            StorageError: the files cannot be written.
        """
        check_recipe(request.recipe)
        started = time.perf_counter()
        half = request.recipe.precision in ("bfloat16", "float16")
        group = ACTIVATION_GROUPS.get(request.recipe.name, 0)
        with _built(request) as model:
            paths = write_ir(model, request.output_dir, half_weights=half, activation_group=group)
        if request.recipe.quantizer == "qdq" and request.recipe.float_precision == "float32":
            from targets.openvino.static import keep_float32

            keep_float32(paths[0])
        options = _write_loader_options(request.recipe, request.output_dir)
        files = [artifact_file(path) for path in (*paths, options)]
        return built_artifact(request, self.spec.name, files, versions(), started)

    def run_plan(
        self, artifact: CompiledArtifact, graph: OnnxArtifact, pad_token_id: int, num_threads: int
    ) -> RunPlan:
        """Say what the runner must load, with every property that changes results or speed."""
        return plan_to_run(
            artifact,
            graph,
            pad_token_id,
            adapter=ADAPTER,
            output=EMBEDDING,
            options=_options(artifact.recipe, num_threads),
            length_multiple=_LENGTH_MULTIPLE,
            max_batch_tokens=_MAX_BATCH_TOKENS,
        )

    def variants(self, plan: RunPlan, num_threads: int) -> tuple[RuntimeVariant, ...]:
        """Vary what does not change the artifact; figures are in `docs/latency.md`."""
        return variants_of_plan(plan, num_threads)

    def ship(self, artifact: CompiledArtifact) -> tuple[tuple[str, str], ...]:
        """Put the IR where loaders look by default; int8 also under its usual name."""
        stem = Path(artifact.files[0].path).stem
        names = ["openvino_model"]
        if artifact.recipe.precision == "int8":
            names.append("openvino_model_qint8_quantized")
        files = tuple(
            (file.path, f"openvino/{name}{Path(file.path).suffix}")
            for name in names
            for file in artifact.files
            if Path(file.path).stem == stem
        )
        return (*files, (LOADER_OPTIONS, f"openvino/{LOADER_OPTIONS}"))


@contextmanager
def _built(request: CompileRequest) -> Iterator[Any]:
    """Yield the graph, quantized as the recipe says."""
    if request.recipe.quantizer == "qdq":
        # onnx is loaded here, so that what a target is costs no import of it
        from targets.openvino.static import static_graph

        with static_graph(request.graph.path, request.plans, request.recipe) as model:
            yield model
    else:
        yield _build(request)


def _build(request: CompileRequest) -> Any:  # noqa: ANN401 - openvino is untyped
    """Read the FP32 graph and let NNCF quantize it as the recipe says."""
    model = read_graph(request.graph.path)
    recipe = request.recipe
    if recipe.quantizer == "none":
        return model
    layers = find_layers(model)
    matched = [n for one in recipe.overrides for n in nodes_matching(one, layers, recipe.name)]
    kept_float = nodes_kept_float(layers, matched)
    if recipe.quantizer == "nncf_weight_only":
        return compress_weights(model, kept_float)
    names = [tensor.name for tensor in request.graph.inputs]
    batches = calibration_batches(request.calibration, names)
    return quantize(model, batches, kept_float, request.progress)


def _write_loader_options(recipe: Recipe, directory: Path) -> Path:
    """Write the properties that decide what is computed, for loaders that take `ov_config`.

    An IR cannot carry the precision hint; left alone, OpenVINO takes bfloat16 where it can.
    """
    path = directory / LOADER_OPTIONS
    deciding = ("INFERENCE_PRECISION_HINT", GROUP_SIZE)
    options = _options(recipe, num_threads=1)
    path.write_text(json.dumps({name: options[name] for name in deciding}, indent=1) + "\n")
    return path


def _options(recipe: Recipe, num_threads: int) -> dict[str, str]:
    """All properties explicit: OpenVINO's defaults differ between CPUs and versions."""
    return {
        "INFERENCE_PRECISION_HINT": _HINTS[recipe.float_precision],
        GROUP_SIZE: str(ACTIVATION_GROUPS.get(recipe.name, 0)),
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(num_threads),
    }


def _telling_features(hardware: Hardware) -> tuple[str, ...]:
    """Return the features that back any precision, out of the hundred that a CPU lists."""
    telling = {one.feature for backings in BACKINGS.values() for one in backings}
    return tuple(sorted(telling & hardware.features))


def _missing(package: str, why: str = "") -> str:
    detail = f" ({why})" if why else ""
    return f"{package} is not installed: {INSTALL}{detail}"
