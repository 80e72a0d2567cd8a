"""What the runner must load: an engine on the GPU, or its graph in ONNX Runtime instead."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from targets.artifacts import plan_to_run
from targets.contract import CompiledArtifact, OnnxArtifact, RunPlan, RuntimeVariant
from targets.errors import NotInstalledError
from targets.tensorrt.cuda import CUDA_BINDINGS
from targets.tensorrt.files import ENGINE_FILE, PLAN_FILE, read_plan
from targets.tensorrt.plan_header import Loader, require_plan

SIMULATION = Path(__file__).with_name("simulation.py")
SESSION = Path(__file__).with_name("session.py")
EMBEDDING = "sentence_embedding"
_LENGTH_MULTIPLE, _MAX_BATCH_TOKENS = 1, 1024


def simulation_plan(artifact: CompiledArtifact, graph: OnnxArtifact, pad_token_id: int) -> RunPlan:
    """Let ONNX Runtime run the very graph that TensorRT is given."""
    return plan_to_run(
        artifact,
        graph,
        pad_token_id,
        adapter=SIMULATION,
        output=EMBEDDING,
        options={},
        length_multiple=_LENGTH_MULTIPLE,
        max_batch_tokens=_MAX_BATCH_TOKENS,
    )


def engine_plan(
    artifact: CompiledArtifact,
    graph: OnnxArtifact,
    pad_token_id: int,
    *,
    module_name: str,
    loader: Loader,
) -> RunPlan:
    """Return what loads an engine, once its hash and its head are those of the loader.

    Args:
        artifact: a finished one.
        graph: the FP32 graph.
        pad_token_id: of the tokenizer.
        module_name: runtime that the session imports.
        loader: which runtime and version that is.

    Raises:
        CompileError: another TensorRT built it.
        StorageError: it is damaged, or not the file that its bundle names.
    """
    entry = artifact.files[0]
    engine = artifact.directory / entry.path
    plan = read_plan(engine.with_name(PLAN_FILE))
    require_plan(engine, loader, sha256=entry.sha256, version_compatible=plan.version_compatible)
    return plan_to_run(
        artifact,
        graph,
        pad_token_id,
        adapter=SESSION,
        output=EMBEDDING,
        options={
            "runtime": module_name,
            "cuda_api": plan.cuda_api,
            "cuda_graph": str(int(plan.cuda_graph)),
            # its hash and header are known by now; such an engine holds a runtime of its own
            "host_code": str(int(plan.version_compatible)),
        },
        length_multiple=_LENGTH_MULTIPLE,
        max_batch_tokens=_MAX_BATCH_TOKENS,
    )


def require_built(artifact: CompiledArtifact, target: str, build: str) -> None:
    """Refuse an artifact that is only prepared.

    Args:
        artifact: what shall run.
        target: whose it is.
        build: the command that builds it.

    Raises:
        NotInstalledError: it holds no engine.
    """
    entry = artifact.files[0]
    if not entry.path.endswith(ENGINE_FILE):
        raise NotInstalledError(
            f"the {target} engine is not built yet",
            why=f"the artifact holds {entry.path}",
            hint=build,
        )


def graph_variants(plan: RunPlan, num_threads: int) -> tuple[RuntimeVariant, ...]:
    """Return CUDA graphs as another way of running an engine, where they can be had."""
    if plan.options.get("cuda_api") != CUDA_BINDINGS or plan.options["cuda_graph"] == "1":
        return ()
    captured = replace(plan, options={**plan.options, "cuda_graph": "1"})
    why = "one launch for the whole engine: small batches wait for the CPU that starts kernels"
    return (RuntimeVariant(name="cuda-graph", plan=captured, num_threads=num_threads, why=why),)
