"""Who takes part: an artifact, ours or a peer's, with everything that is needed to run it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.bundles import artifact_bytes
from benchmarks.habits import PEER_BATCH_SIZE, PeerRunner
from benchmarks.peer_files import PeerFiles
from exporter.values import EncoderSpec
from targets.contract import Device, Runner, RunPlan

OURS = "ours"
BASELINE = "st-onnx-fp32"
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
        num_threads: CPU threads of its own; None: those of the comparison.
    """

    name: str
    title: str
    plan: RunPlan
    batch_size: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    num_threads: int | None = None

    @property
    def size_bytes(self) -> int:
        """Size of the artifact's files."""
        return artifact_bytes(self.plan.model)

    def start(self, device: Device, num_threads: int) -> Runner:
        """Start a runner of its own for this artifact."""
        runner = device.start(self.plan, self.num_threads or num_threads)
        if self.batch_size is None:
            return runner
        return PeerRunner(runner, self.plan.max_seq_length, self.batch_size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Brief:
    """What the peers are made from, and fed with.

    Args:
        spec: the model.
        pad_token_id: what batches are padded with.
        calibration: texts that a static int8 peer is calibrated with.
    """

    spec: EncoderSpec
    pad_token_id: int
    calibration: Sequence[str]


def our_contender(
    plan: RunPlan, recipe: str, versions: Mapping[str, str], num_threads: int | None = None
) -> Contender:
    """Return the bundle's artifact as it ships: its options, length buckets, token budget."""
    title = f"this bundle, recipe {recipe}"
    return Contender(name=OURS, title=title, plan=plan, versions=versions, num_threads=num_threads)


def peer_contender(
    brief: Brief, files: PeerFiles, form: str, *, name: str, title: str
) -> Contender:
    """Return one of a peer's artifacts, batched as its users do.

    Args:
        brief: the model.
        files: the peer's exported model.
        form: which of its forms.
        name: short name in tables and files.
        title: what it is and who made it.
    """
    plan = RunPlan(
        adapter=_ADAPTER,
        model=files.entry(form),
        inputs=files.inputs,
        output="last_hidden_state",
        pad_token_id=brief.pad_token_id,
        embedding_dim=brief.spec.embedding_dim,
        max_seq_length=brief.spec.max_seq_length,
        length_multiple=1,
        max_batch_tokens=PEER_BATCH_SIZE * brief.spec.max_seq_length,
    )
    return Contender(
        name=name, title=title, plan=plan, batch_size=PEER_BATCH_SIZE, versions=files.versions
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
