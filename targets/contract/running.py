"""What the runner loads, embeds and times, and what it says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from targets.contract.tokens import TokenSequences


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """What the runner on the device must load.

    Args:
        adapter: a Python file that imports numpy and one runtime only and defines
            `open_session(model, plan)`; it travels to the device with the artifact.
        model: entry file of the artifact on this machine; its siblings travel with it.
        inputs: graph input names in the order they are fed.
        output: name of the embedding output.
        options: runtime options, always explicit (precision hint, threads, streams).
        length_multiple: sequence lengths are padded up to a multiple of this, so that
            mixed lengths do not pay for new shapes.
        max_batch_tokens: padded tokens per batch when many texts are embedded.
        adapter_parts: names of files beside the adapter that it loads by their paths; they travel
            with it and import no more than it does.
    """

    adapter: Path
    model: Path
    inputs: tuple[str, ...]
    output: str
    pad_token_id: int
    embedding_dim: int
    max_seq_length: int
    options: Mapping[str, str] = field(default_factory=dict)
    length_multiple: int = 16
    max_batch_tokens: int = 2048
    adapter_parts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeVariant:
    """Another way of running an artifact that stays what it is: threads, streams, batches.

    Args:
        name: unique within the variants of one plan; used in reports.
        plan: the whole plan; model, inputs and output are those of the plan that it varies.
        num_threads: CPU threads of the runner.
        why: why it may be faster, in one sentence.
        batched_only: it serves several batches at once and slows single requests down, however
            a busy machine makes it look; not tried where single requests count.
    """

    name: str
    plan: RunPlan
    num_threads: int
    why: str
    batched_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """How texts are put into batches for `Runner.embed` and for timed mixes.

    Args:
        max_batch: texts per batch at most.
        max_tokens: padded tokens per batch at most; None: the plan's own budget.
        sort: True: by length (least padding); False: the order given.
        length_multiple: None: the plan's own.
        extra_padding: additional pad tokens behind every text (stability checks).
    """

    max_batch: int = 64
    max_tokens: int | None = None
    sort: bool = True
    length_multiple: int | None = None
    extra_padding: int = 0


ALONE = Batching(max_batch=1)
"""Each text by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Something that is timed.

    kind "shape": full batches of `batch_size` × `sequence_length`, one sample per call.
    kind "single": every text of `tokens` alone, one sample per text.
    kind "batched": all `tokens` in length-sorted batches, one sample per whole pass.
    """

    name: str
    kind: Literal["shape", "single", "batched"]
    batch_size: int = 1
    sequence_length: int = 0
    tokens: TokenSequences | None = None

    @property
    def texts_per_pass(self) -> int:
        """Texts that one pass embeds."""
        return self.batch_size if self.tokens is None else len(self.tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutedPrecision:
    """One row of what a runtime really executed.

    `time_share` is the fraction of the profiled time in [0, 1]; None where the runtime
    does not tell. `node_names` are not kept: this is an aggregate.
    """

    op_type: str
    dtype: str
    count: int
    time_share: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerInfo:
    """What the runner knows about its process after loading.

    `load_s` and `first_call_ms` are None on a device that measures no latency.
    """

    load_s: float | None
    first_call_ms: float | None
    rss_bytes: int
    peak_rss_bytes: int
    tool_versions: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
