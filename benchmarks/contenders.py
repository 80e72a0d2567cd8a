"""Who takes part: our artifact and four that a user of the peers gets by default."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.bundles import artifact_bytes
from benchmarks.habits import PEER_BATCH_SIZE, PeerRunner
from benchmarks.peer_files import PeerFiles, onnxruntime_files, openvino_files
from exporter.steps.workspace import Workspace
from exporter.values import EncoderSpec
from targets.contract import Device, Runner, RunPlan

OURS = "ours"
BASELINE = "st-onnx-fp32"
ONNX_PRESET = "avx512_vnni"
_ADAPTER = Path(__file__).with_name("adapters") / "hidden_state_session.py"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One artifact with everything that is needed to run it.

    Args:
        name: short name in tables and files.
        title: what it is and who made it.
        plan: what the runner loads.
        batch_size: texts per batch of a peer; None: batches by the plan's token budget.
        versions: versions of the packages that made it.
    """

    name: str
    title: str
    plan: RunPlan
    batch_size: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """Size of the artifact's files."""
        return artifact_bytes(self.plan.model)

    def start(self, device: Device, num_threads: int) -> Runner:
        """Start a runner of its own for this artifact."""
        runner = device.start(self.plan, num_threads)
        if self.batch_size is None:
            return runner
        return PeerRunner(runner, self.plan.max_seq_length, self.batch_size)


def our_contender(plan: RunPlan, recipe: str, versions: Mapping[str, str]) -> Contender:
    """Return the bundle's artifact as it ships: its options, length buckets, token budget."""
    title = f"this bundle, recipe {recipe}"
    return Contender(name=OURS, title=title, plan=plan, versions=versions)


def peer_contenders(
    work: Workspace, spec: EncoderSpec, pad_token_id: int, calibration: Sequence[str]
) -> tuple[Contender, ...]:
    """Let the peers export the model; the first is the baseline of every ratio.

    Args:
        work: cache and reporter.
        spec: the model.
        pad_token_id: what batches are padded with.
        calibration: texts that the static int8 peer is calibrated with.
    """
    onnx = onnxruntime_files(work, spec, ONNX_PRESET)
    openvino = openvino_files(work, spec, calibration)

    def peer(name: str, title: str, files: PeerFiles, precision: str) -> Contender:
        plan = _peer_plan(files, precision, spec, pad_token_id)
        return Contender(
            name=name,
            title=title,
            plan=plan,
            batch_size=PEER_BATCH_SIZE,
            versions=files.versions,
        )

    return (
        peer(BASELINE, "sentence-transformers ONNX, FP32", onnx, "float32"),
        peer("st-onnx-int8", f"sentence-transformers ONNX, int8 {ONNX_PRESET}", onnx, "int8"),
        peer(
            "st-openvino", "sentence-transformers OpenVINO, default precision", openvino, "float32"
        ),
        peer("st-openvino-int8", "sentence-transformers OpenVINO, NNCF int8", openvino, "int8"),
    )


def _peer_plan(files: PeerFiles, precision: str, spec: EncoderSpec, pad_token_id: int) -> RunPlan:
    return RunPlan(
        adapter=_ADAPTER,
        model=files.entry(precision),
        inputs=files.inputs,
        output="last_hidden_state",
        pad_token_id=pad_token_id,
        embedding_dim=spec.embedding_dim,
        max_seq_length=spec.max_seq_length,
        length_multiple=1,
        max_batch_tokens=PEER_BATCH_SIZE * spec.max_seq_length,
    )


@contextmanager
def started(
    contenders: Sequence[Contender], device: Device, num_threads: int
) -> Iterator[Mapping[str, Runner]]:
    """Yield a loaded runner of every contender, each in its own process; end them after."""
    with ExitStack() as stack:
        yield {
            contender.name: stack.enter_context(closing(contender.start(device, num_threads)))
            for contender in contenders
        }
