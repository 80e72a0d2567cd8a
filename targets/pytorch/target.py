"""PyTorch on x86 and ARM CPUs, and on NVIDIA GPUs."""

from __future__ import annotations

import time
from pathlib import Path

from targets.artifacts import artifact_file, built_artifact, plan_to_run
from targets.contract import (
    LOCAL,
    LOCAL_CUDA,
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
from targets.errors import CompileError, NotInstalledError
from targets.hardware.gpu_hardware import ARCHITECTURE
from targets.pytorch.files import LOADED, PLACE, place_of
from targets.pytorch.recipes import (
    BFLOAT16_FEATURES,
    KINDS,
    PACKED_FEATURES,
    PRODUCT_FEATURES,
    check_recipe,
    is_gpu,
    recipes_for,
)
from targets.pytorch.sdk import (
    BITSANDBYTES,
    EXTRA,
    INSTALL,
    RUNTIME,
    TORCHAO,
    lacking,
    lacks_cuda,
    versions,
)
from targets.pytorch.variants import (
    DEFAULTS,
    LENGTH_MULTIPLE,
    MAX_BATCH_TOKENS,
    variants_of_plan,
)

ADAPTER = Path(__file__).with_name("session.py")
ADAPTER_PARTS = ("executed.py", "gpu.py", "loading.py", "pooling.py")
EMBEDDING = "sentence_embedding"
FOLDER = "torch"

_CAPPED = f"{LOCAL}:"
_UNCAPPABLE = (
    "PyTorch cannot be held to older instructions in all of its kernels: take the machine itself, "
    "by --device ssh://user@host"
)


class TorchTarget:
    """Builds folders of safetensors that PyTorch runs, quantized by torchao and bitsandbytes."""

    spec = TargetSpec(
        name="torch",
        vendor="PyTorch Foundation",
        runtime="PyTorch",
        precisions=("float32", "bfloat16", "float16", "float8", "int8", "int4"),
        max_opset=23,
        artifact_kind="safetensors",
        extra=EXTRA,
        architectures=("x86_64", "aarch64", ARCHITECTURE),
        distributions=RUNTIME,
        needs_source=True,
    )

    def probe(self, device: Device) -> Availability:
        """Say whether PyTorch is here, to build with, and on the device; never raises.

        Without torchao or bitsandbytes the target is available, but `missing` says whose
        recipes cannot be built, and `candidates` leaves them out.
        """
        absent = lacking(RUNTIME)
        if absent:
            found = f"{', '.join(absent)} not installed: {INSTALL}"
            return Availability(ok=False, missing=(found,), tool_versions=versions())
        try:
            hardware = device.hardware()
            there = device.distributions(self.spec.distributions)
        except Exception as error:  # the contract: a probe answers, whatever a device does
            found = f"device {device.name} does not say what it is: {error}"
            return Availability(ok=False, missing=(found,), tool_versions=versions())
        if device.name != LOCAL_CUDA and device.name.startswith(_CAPPED):
            return Availability(ok=False, missing=(_UNCAPPABLE,), tool_versions=versions())
        if is_gpu(hardware) and (found := lacks_cuda()):
            return Availability(ok=False, missing=(found,), tool_versions=versions())
        absent = tuple(name for name in RUNTIME if name not in there)
        return Availability(
            ok=not absent,
            missing=(
                tuple(f"{device.name} lacks {name}: pip install {name}" for name in absent)
                or _missing_quantizers()
            ),
            device_name=hardware.model_name,
            fingerprint=hardware.fingerprint,
            features=_telling_features(hardware),
            tool_versions=versions() | {f"{name} there": v for name, v in there.items()},
        )

    def candidates(self, graph: OnnxArtifact | None, hardware: Hardware) -> tuple[Recipe, ...]:
        """Return the recipes for this device, the FP32 baseline first."""
        recipes = recipes_for(hardware)
        return tuple(one for one in recipes if not lacking(KINDS[one.quantizer].needs))

    def compile(self, request: CompileRequest) -> CompiledArtifact:
        """Write the folder of one recipe.

        The same request gives the same bytes: nothing in it is random.

        Raises:
            CompileError: the recipe is none of ours, one of its overrides matches no layer,
                or the libraries refuse the model.
            NotInstalledError: PyTorch, or the recipe's quantizer, is missing.
            StorageError: a file cannot be written.
        """
        # onnx and torch are loaded here, so that what a target is costs no import of them
        check_recipe(request.recipe)
        source = request.source
        if source is None:
            raise CompileError(
                "the PyTorch model is not at hand",
                why="target torch is made from it, not from its graph",
                hint="export from the model, not from a bundle",
            )
        absent = lacking((*RUNTIME, *KINDS[request.recipe.quantizer].needs))
        if absent:
            raise NotInstalledError(f"{', '.join(absent)} not installed", hint=INSTALL)
        from targets.pytorch.build import build_folder

        started = time.perf_counter()
        build_folder(request, source)
        folder = request.output_dir
        first = [folder / name for name in LOADED if (folder / name).is_file()]
        others = sorted({one for one in folder.rglob("*") if one.is_file()} - set(first))
        files = [artifact_file(one, folder) for one in first]
        files += [artifact_file(one, folder, on_device=False) for one in others]
        return built_artifact(request, self.spec.name, files, versions(), started)

    def run_plan(
        self, artifact: CompiledArtifact, graph: OnnxArtifact, pad_token_id: int, num_threads: int
    ) -> RunPlan:
        """Say what the runner must load, with every option that changes results or speed.

        Raises:
            StorageError: the artifact does not say where it runs.
        """
        place = place_of((artifact.directory / artifact.files[0].path).parent)
        return plan_to_run(
            artifact,
            graph,
            pad_token_id,
            adapter=ADAPTER,
            adapter_parts=ADAPTER_PARTS,
            output=EMBEDDING,
            options={**DEFAULTS, PLACE: place},
            length_multiple=LENGTH_MULTIPLE,
            max_batch_tokens=MAX_BATCH_TOKENS[place],
        )

    def variants(self, plan: RunPlan, num_threads: int) -> tuple[RuntimeVariant, ...]:
        """Vary what does not change the artifact; figures are in `docs/torch.md`."""
        return variants_of_plan(plan, num_threads)

    def ship(self, artifact: CompiledArtifact) -> tuple[tuple[str, str], ...]:
        """Put the folder into the bundle as it is: a Sentence Transformers model of its own."""
        return tuple((file.path, f"{FOLDER}/{file.path}") for file in artifact.files)


def _missing_quantizers() -> tuple[str, ...]:
    described = (("by torchao", TORCHAO), ("by bitsandbytes", BITSANDBYTES))
    return tuple(
        f"no recipes {whose}: {', '.join(absent)} not installed: {INSTALL}"
        for whose, needed in described
        if (absent := lacking(needed))
    )


def _telling_features(hardware: Hardware) -> tuple[str, ...]:
    """Return the features that decide on recipes, out of the hundred that a CPU lists."""
    if is_gpu(hardware):
        return tuple(sorted(hardware.features))
    telling = {*BFLOAT16_FEATURES, *PRODUCT_FEATURES, *PACKED_FEATURES}
    return tuple(sorted(telling & hardware.features))
