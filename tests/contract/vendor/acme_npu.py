"""A vendor's target: float32, and eight-bit weights in blocks, on ONNX Runtime's CPU kernels.

Of embedding-exporter it imports the contract and its errors, nothing else; of the runtime,
nothing before it is used.
"""

from __future__ import annotations

import hashlib
import time
from fnmatch import fnmatchcase
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from targets.contract import (
    ArtifactFile,
    Availability,
    CompiledArtifact,
    CompileRequest,
    Device,
    Hardware,
    OnnxArtifact,
    Recipe,
    RunPlan,
    TargetSpec,
)
from targets.errors import CompileError

if TYPE_CHECKING:
    import onnx

ADAPTER = Path(__file__).with_name("acme_npu_session.py")
BLOCK_SIZE = 32
INSTALL = "pip install 'acme-npu[runtime]'"

FLOAT32 = Recipe(
    name="float32",
    precision="float32",
    float_precision="float32",
    why="this is what every other recipe is compared with",
)
INT8_WEIGHTS = Recipe(
    name="int8-weights",
    precision="int8",
    float_precision="float32",
    quantizer="matmul_nbits",
    why="an NPU without float weights reads a quarter of the bytes",
)
RECIPES = (FLOAT32, INT8_WEIGHTS)


class AcmeNpu:
    """Builds ONNX files for an accelerator that ONNX Runtime stands for."""

    spec = TargetSpec(
        name="acme-npu",
        vendor="Acme",
        runtime="Acme NPU",
        precisions=("float32", "int8"),
        max_opset=21,
        artifact_kind="ONNX",
        extra="acme-npu",
        distributions=("onnxruntime",),
    )

    def probe(self, device: Device) -> Availability:
        """Say whether the runtime is here and there, and whether we build for such a device."""
        lacking = [name for name in ("onnx", "onnxruntime") if not _is_installed(name)]
        if lacking:
            return _no(f"{' and '.join(lacking)} not installed: {INSTALL}")
        try:
            hardware = device.hardware()
            there = device.distributions(self.spec.distributions)
        except Exception as error:  # the contract: a probe answers, whatever a device does
            return _no(f"{device.name} does not say what it is: {error}")
        if hardware.architecture not in self.spec.architectures:
            made_for = " and ".join(self.spec.architectures)
            return _no(f"made for {made_for}, {device.name} is {hardware.architecture}")
        if not there:
            return _no(f"{device.name} has no onnxruntime: pip install onnxruntime there")
        return Availability(
            ok=True,
            device_name=hardware.model_name,
            fingerprint=hardware.fingerprint,
            tool_versions=_versions(),
        )

    def candidates(self, graph: OnnxArtifact | None, hardware: Hardware) -> tuple[Recipe, ...]:
        """Return the same two recipes for every machine."""
        return RECIPES

    def compile(self, request: CompileRequest) -> CompiledArtifact:
        """Write `model.onnx`; equal requests give equal bytes."""
        started = time.perf_counter()
        model = _built(request)
        path = request.output_dir / "model.onnx"
        path.write_bytes(model.SerializeToString(deterministic=True))
        request.progress(1, 1)
        content = path.read_bytes()
        file = ArtifactFile(
            path=path.name, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content)
        )
        return CompiledArtifact(
            directory=request.output_dir,
            files=(file,),
            target=self.spec.name,
            recipe=request.recipe,
            built_from=request.graph.sha256,
            device_requirement=(),
            tool_versions=_versions(),
            compile_s=time.perf_counter() - started,
        )

    def run_plan(
        self, artifact: CompiledArtifact, graph: OnnxArtifact, pad_token_id: int, num_threads: int
    ) -> RunPlan:
        """Say what the runner must load."""
        return RunPlan(
            adapter=ADAPTER,
            model=artifact.directory / artifact.files[0].path,
            inputs=tuple(tensor.name for tensor in graph.inputs),
            output="sentence_embedding",
            pad_token_id=pad_token_id,
            embedding_dim=graph.embedding_dim,
            max_seq_length=graph.max_seq_length,
            options={"intra_op_threads": str(num_threads)},
        )

    def ship(self, artifact: CompiledArtifact) -> tuple[tuple[str, str], ...]:
        """Put the file into a folder of our own."""
        return tuple((file.path, f"acme_npu/{file.path}") for file in artifact.files)


def _built(request: CompileRequest) -> onnx.ModelProto:
    """Read the graph and put blocks of integers where the recipe says so."""
    import onnx

    recipe = request.recipe
    if (recipe.quantizer, recipe.precision) not in {(r.quantizer, r.precision) for r in RECIPES}:
        raise CompileError(
            f"acme-npu cannot build recipe {recipe.name}",
            why=f"it asks for {recipe.precision} by quantizer {recipe.quantizer!r}",
            hint=f"known recipes: {', '.join(one.name for one in RECIPES)}",
        )
    model = onnx.load(request.graph.path)
    layers = _linear_layers(model)
    kept_float: set[str] = set()
    for override in recipe.overrides:
        matched = {path for path in layers if fnmatchcase(path, override.pattern)}
        if not matched:
            raise CompileError(f"recipe {recipe.name}: no layer matches {override.pattern!r}")
        kept_float |= matched
    if recipe.quantizer == "matmul_nbits":
        for path in layers.keys() - kept_float:
            _put_blocks(model, layers[path])
        _drop_unused(model)
        model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return model


def _linear_layers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """Module path → MatMul node with a weight matrix; nodes are named by module path."""
    matrices = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) == 2}
    return {
        node.name.rpartition("/")[0]: node
        for node in model.graph.node
        if node.op_type == "MatMul" and node.input[1] in matrices
    }


def _put_blocks(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
    """Turn a MatMul into MatMulNBits (onnxruntime, `docs/ContribOperators.md`)."""
    from onnx import helper, numpy_helper

    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    matrix = numpy_helper.to_array(weights[node.input[1]])
    blocks, scales = _blocks_of(matrix.T)
    name = node.input[1]
    names = (f"{name}.blocks", f"{name}.scales")
    model.graph.initializer.extend(
        numpy_helper.from_array(array, one)
        for array, one in zip((blocks, scales), names, strict=True)
    )
    size = {"K": matrix.shape[0], "N": matrix.shape[1], "bits": 8, "block_size": BLOCK_SIZE}
    made = helper.make_node(
        "MatMulNBits",
        [node.input[0], *names],
        list(node.output),
        name=node.name,
        domain="com.microsoft",
        **size,
    )
    node.CopyFrom(made)


def _blocks_of(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Round rows to eight bits, one scale for each block; the zero point is 128.

    Args:
        rows: [N, K], float32.

    Returns:
        Blocks [N, K / 32, 32], uint8 (K filled up with zeros), and scales [N, K / 32], float32.
    """
    missing = -rows.shape[1] % BLOCK_SIZE
    whole = np.pad(rows, ((0, 0), (0, missing))).reshape(len(rows), -1, BLOCK_SIZE)
    scales = np.maximum(np.abs(whole).max(axis=2) / 127, np.finfo(np.float32).tiny)
    blocks = np.rint(whole / scales[:, :, None]) + 128
    return blocks.astype(np.uint8), scales.astype(np.float32)


def _drop_unused(model: onnx.ModelProto) -> None:
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def _no(reason: str) -> Availability:
    return Availability(ok=False, missing=(reason,), tool_versions=_versions())


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ValueError:  # blocked by a None in sys.modules
        return False


def _versions() -> dict[str, str]:
    names = ("acme-npu", "onnxruntime")
    return {name: metadata.version(name) for name in names if _has(name)}


def _has(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
