"""Proof that the ONNX graph computes what PyTorch computes, over many shapes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from exporter.source.encoder import LoadedEncoder, pad_batch
from exporter.source.self_check import row_cosines
from exporter.values import ParityReport
from targets.contract import (
    FloatArray,
    IntArray,
    OnnxArtifact,
    Progress,
    TokenSequences,
    no_progress,
)
from targets.errors import ExportError, NonFiniteError, ParityError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

LEAST_COSINE = 0.99999

_LENGTHS = (1, 2, 3, 17, 64)
_BATCH_SIZES = (1, 2, 3, 4, 5, 6, 7, 8)
# Eager attention holds heads × length² floats, so longer sequences than this are not tried.
_MAX_ATTENTION_FLOATS = 64 << 20
_MAX_BATCH_TOKENS = 512
_EXTRA_PADDING = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """One padded batch, and the tokens of each row."""

    rows: tuple[np.ndarray, ...]
    ids: IntArray
    mask: IntArray

    @property
    def shape(self) -> tuple[int, int]:
        return self.ids.shape[0], self.ids.shape[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Agreement:
    """How one case agrees: the worst row's cosine, and the largest absolute difference."""

    case: _Case
    worst_row: int
    min_cosine: float
    max_abs_difference: float


def check_parity(
    encoder: LoadedEncoder,
    artifact: OnnxArtifact,
    tokens: TokenSequences,
    *,
    progress: Progress = no_progress,
) -> ParityReport:
    """Compare the graph in ONNX Runtime with PyTorch on the CPU.

    Batches of 1 to 8 and lengths from 1 to the model's limit, padded and not, of real texts and
    of exact lengths cut from them. A row agrees when both its sentence embedding and its last
    hidden states do (cosine in float64).

    Args:
        encoder: the loaded model.
        artifact: its graph.
        tokens: real texts, at least one.
        progress: called with the number of batches done.

    Raises:
        ParityError: if a cosine is below 0.99999; names the worst text and its shape.
        NonFiniteError: if the graph gives NaN or infinity.
        ExportError: if ONNX Runtime cannot run the graph, or there is no text.
    """
    cases = list(_cases(encoder, tokens))
    session = _open_session(artifact)
    worst: _Agreement | None = None
    largest = 0.0
    for number, case in enumerate(cases, 1):
        agreement = _compare(encoder, session, artifact, case)
        largest = max(largest, agreement.max_abs_difference)
        if worst is None or agreement.min_cosine < worst.min_cosine:
            worst = agreement
        progress(number, len(cases))
    if worst is None:
        raise ExportError("parity cannot be checked", why="there is no text")
    if worst.min_cosine < LEAST_COSINE:
        raise _disagreement(encoder, worst)
    return ParityReport(
        min_cosine=worst.min_cosine,
        max_abs_difference=largest,
        num_cases=sum(len(case.rows) for case in cases),
        shapes=tuple(dict.fromkeys(case.shape for case in cases)),
    )


def _cases(encoder: LoadedEncoder, tokens: TokenSequences) -> Iterator[_Case]:
    if len(tokens.ids) == 0:
        return
    longest = _longest_checked(encoder)
    lengths = sorted({n for n in (*_LENGTHS, longest - 1, longest) if 0 < n <= longest})
    short = [n for n in lengths if n <= max(_LENGTHS)]
    pad_token_id = tokens.pad_token_id
    for length in lengths:
        yield _case([_of_length(tokens, length)], pad_token_id)
    for size in _BATCH_SIZES:
        # The limit itself in the largest batch only: the rest is as telling and far cheaper.
        mixed = _spread(lengths if size == max(_BATCH_SIZES) else short, size)
        yield _case([_of_length(tokens, n, seed) for seed, n in enumerate(mixed)], pad_token_id)
        yield _case([_of_length(tokens, short[-2], seed) for seed in range(size)], pad_token_id)
        limit = min(longest, _MAX_BATCH_TOKENS // size)
        real = [tokens[i][:limit] for i in _spread(range(len(tokens)), size)]
        yield _case(real, pad_token_id, min(_EXTRA_PADDING, longest - max(map(len, real))))


def _longest_checked(encoder: LoadedEncoder) -> int:
    heads = getattr(encoder.transformer.config, "num_attention_heads", 12) or 12
    return min(encoder.spec.max_seq_length, int((_MAX_ATTENTION_FLOATS / heads) ** 0.5))


def _spread(values: Sequence[int], count: int) -> list[int]:
    """Pick `count` values from one end to the other; the last is always among them."""
    positions = np.linspace(len(values) - 1, 0, count).round().astype(int)
    return [int(values[i]) for i in positions]


def _of_length(tokens: TokenSequences, length: int, seed: int = 0) -> np.ndarray:
    """Cut a sequence of exactly `length` tokens: real tokens, ending as real texts end."""
    stream = np.resize(np.roll(tokens.ids, -seed * 31), length)
    first = tokens[int(np.argmax(tokens.lengths))]
    stream[-1] = first[-1]
    stream[0] = first[0]
    return stream


def _case(rows: Sequence[np.ndarray], pad_token_id: int, extra_padding: int = 0) -> _Case:
    packed = TokenSequences.from_lists(rows, pad_token_id)
    ids, mask = pad_batch(packed, np.arange(len(rows)))
    if extra_padding > 0:
        ids = np.pad(ids, ((0, 0), (0, extra_padding)), constant_values=pad_token_id)
        mask = np.pad(mask, ((0, 0), (0, extra_padding)))
    return _Case(rows=tuple(rows), ids=ids, mask=mask)


def _open_session(artifact: OnnxArtifact) -> InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Without the arena, memory goes back after each of the many shapes.
    options.enable_cpu_mem_arena = False
    # PyTorch runs in turn on the same cores; waiting threads must not burn them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(
            str(artifact.path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime's pybind errors share no public base
        raise ExportError(
            f"ONNX Runtime cannot load {artifact.path.name}", why=str(error).strip()
        ) from error


def _compare(
    encoder: LoadedEncoder, session: InferenceSession, artifact: OnnxArtifact, case: _Case
) -> _Agreement:
    feed = {"input_ids": case.ids, "attention_mask": case.mask}
    if len(artifact.inputs) > len(feed):
        feed["token_type_ids"] = np.zeros_like(case.ids)
    ours = session.run([tensor.name for tensor in artifact.outputs], feed)
    if not all(np.isfinite(output).all() for output in _valid(ours, case)):
        raise NonFiniteError(
            f"the exported graph gives NaN or infinity at shape {_shape(case)}",
            why=f"on {_excerpt(encoder, case.rows[0])}",
        )
    theirs = encoder.forward(case.ids, case.mask)
    cosines = np.minimum(_hidden_cosines(ours[0], theirs[0], case), row_cosines(ours[1], theirs[1]))
    worst = int(np.argmin(cosines))
    return _Agreement(
        case=case,
        worst_row=worst,
        min_cosine=float(cosines[worst]),
        max_abs_difference=float(np.abs(ours[1] - theirs[1]).max()),
    )


def _valid(outputs: Sequence[FloatArray], case: _Case) -> tuple[FloatArray, FloatArray]:
    """Return the hidden states of real tokens only, and the embeddings."""
    return outputs[0][case.mask.astype(bool)], outputs[1]


def _hidden_cosines(ours: FloatArray, theirs: FloatArray, case: _Case) -> np.ndarray:
    real = case.mask[:, :, None]
    return row_cosines(ours * real, theirs * real)


def _disagreement(encoder: LoadedEncoder, worst: _Agreement) -> ParityError:
    row = worst.case.rows[worst.worst_row]
    return ParityError(
        f"the exported graph and PyTorch disagree: cosine {worst.min_cosine:.6f}",
        why=f"worst at shape {_shape(worst.case)}, row {worst.worst_row}, {len(row)} tokens: "
        f"{_excerpt(encoder, row)}; at least {LEAST_COSINE} is needed",
        hint="nothing is built from such a graph; report the model's architecture",
    )


def _shape(case: _Case) -> str:
    return f"{case.shape[0]}x{case.shape[1]}"


def _excerpt(encoder: LoadedEncoder, row: np.ndarray) -> str:
    return f"{encoder.decode(row)[:80]!r} (token ids {row[:8].tolist()})"
