"""What the runner is told and what an adapter must offer; the errors both speak in.

The runner shares no code with the program that starts it: everything arrives as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

TokenArray = NDArray[np.int64]
Inputs = dict[str, TokenArray]
ExecutedRow = tuple[str, str, int, float | None]

FailureKind = Literal[
    "adapter",
    "command",
    "import",
    "lacks",
    "memory",
    "missing_file",
    "non_finite",
    "shape",
    "storage",
    "tokens",
]


class RunnerFailure(Exception):  # noqa: N818 - an answer to the caller, not a fault of the runner
    """A command could not be done; it is answered by name and the runner goes on.

    Args:
        kind: one of `FailureKind`.
        message: one line: what happened and to what.
        subject: the package that cannot be imported, the tool that the device lacks, or the file
            that is missing; may be "".
    """

    def __init__(self, kind: FailureKind, message: str, subject: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.subject = subject


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPlan:
    """What an adapter needs to open a session.

    Args:
        inputs: graph input names in the order they are fed.
        output: name of the embedding output, shape [batch, embedding_dim], float32.
        options: runtime options, all explicit.
        length_multiple: sequence lengths are padded up to a multiple of this.
        max_batch_tokens: padded tokens per batch at most.
        num_threads: CPU threads the runtime may use.
    """

    adapter: Path
    model: Path
    inputs: tuple[str, ...]
    output: str
    pad_token_id: int
    embedding_dim: int
    max_seq_length: int
    options: Mapping[str, str]
    length_multiple: int
    max_batch_tokens: int
    num_threads: int

    @classmethod
    def from_json(cls, values: Mapping[str, Any], num_threads: int) -> SessionPlan:
        """Build the plan from the `load` command.

        Raises:
            RunnerFailure: "command" if a field is missing or unknown.
        """
        fields = dict(values)
        try:
            fields["adapter"] = Path(fields["adapter"])
            fields["model"] = Path(fields["model"])
            fields["inputs"] = tuple(fields["inputs"])
            return cls(**fields, num_threads=num_threads)
        except (KeyError, TypeError) as error:
            raise RunnerFailure("command", f"the plan is incomplete: {error!r}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRules:
    """How texts are put into batches; the plan's own values are already filled in.

    Args:
        max_batch: texts per batch at most.
        max_tokens: padded tokens per batch at most (one text may exceed it).
        sort: True: by length; False: the order given.
        length_multiple: sequence lengths are padded up to a multiple of this.
        extra_padding: further pad tokens behind every text.
        max_seq_length: no sequence is ever longer.
    """

    max_batch: int
    max_tokens: int
    sort: bool
    length_multiple: int
    extra_padding: int
    max_seq_length: int

    @classmethod
    def from_json(cls, values: Mapping[str, Any], plan: SessionPlan) -> BatchRules:
        """Fill what `values` leaves open (absent or null) from the plan.

        Raises:
            RunnerFailure: "command" if a limit is not positive or a name is unknown.
        """
        given = {name: value for name, value in values.items() if value is not None}
        defaults: dict[str, Any] = {
            "max_batch": 64,
            "max_tokens": plan.max_batch_tokens,
            "sort": True,
            "length_multiple": plan.length_multiple,
            "extra_padding": 0,
        }
        if unknown := sorted(given.keys() - defaults.keys()):
            raise RunnerFailure("command", f"unknown batching rules {unknown}")
        rules = cls(**(defaults | given), max_seq_length=plan.max_seq_length)
        if min(rules.max_batch, rules.max_tokens, rules.length_multiple) < 1:
            raise RunnerFailure("command", f"batching limits must be positive: {rules}")
        if rules.extra_padding < 0:
            raise RunnerFailure("command", f"extra_padding is negative: {rules.extra_padding}")
        return rules


class Session(Protocol):
    """A loaded artifact; what an adapter's `open_session(model, plan)` returns.

    A session that embeds several batches at once may have a further method
    `run_many(batches: list[Inputs]) -> list[NDArray[np.float32]]`, results in the order of
    the batches; many texts are then embedded and timed through it.
    """

    def run(self, inputs: Inputs) -> NDArray[np.float32]:
        """Embed one padded batch of int64 arrays [batch, length]; returns [batch, dim]."""

    def inspect(self, inputs: Inputs) -> list[ExecutedRow]:
        """Return rows of op type, dtype, count and share of time of one batch."""

    def versions(self) -> dict[str, str]:
        """Return the runtime's package versions."""

    def options(self) -> dict[str, str]:
        """Return the effective options, read back from the runtime."""

    def close(self) -> None:
        """Release the runtime's resources."""
