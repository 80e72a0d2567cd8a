"""torch module to ONNX in memory, through torch's dynamo exporter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from exporter.source.encoder import LoadedEncoder
from exporter.source.quiet import quiet
from exporter.source.torch_module import INPUT_NAMES, OUTPUT_NAMES, attention
from targets.errors import ExportError

if TYPE_CHECKING:
    import onnx_ir
    from torch import Tensor

BATCH_AXIS = "batch_size"
SEQUENCE_AXIS = "sequence_length"

# Both above one: torch.export takes a dimension of one for a constant.
_EXAMPLE_BATCH = 2
_EXAMPLE_LENGTH = 16
_LARGEST_BATCH = 1 << 16
_LINES_OF_CAUSE = 6


def trace(encoder: LoadedEncoder, opset: int) -> onnx_ir.Model:
    """Export the encoder's module with dynamic batch and sequence axes.

    Raises:
        ExportError: if torch cannot export this architecture.
    """
    import torch

    inputs = _example_inputs(encoder)
    axes = _dynamic_axes(encoder)
    names = list(INPUT_NAMES[: len(inputs)])
    with quiet(), attention(encoder.transformer, "eager"), _broadcast_masks():
        try:
            program = torch.onnx.export(
                encoder.module,
                inputs,
                input_names=names,
                output_names=list(OUTPUT_NAMES),
                dynamic_shapes={name: axes for name in names},
                dynamo=True,
                opset_version=opset,
                verbose=False,
            )
        except Exception as error:  # torch.export fails with whatever the model's code raised
            raise _export_error(encoder, error) from error
    model: onnx_ir.Model = program.model
    return model


def _example_inputs(encoder: LoadedEncoder) -> tuple[Tensor, ...]:
    import torch

    length = min(_EXAMPLE_LENGTH, encoder.spec.max_seq_length)
    ids = torch.arange(_EXAMPLE_BATCH * length).reshape(_EXAMPLE_BATCH, length)
    ids = ids % min(encoder.transformer.config.vocab_size, 1000)
    mask = torch.ones_like(ids)
    mask[1, length // 2 :] = 0
    return (ids, mask, torch.zeros_like(ids))[: 3 if encoder.takes_token_type_ids else 2]


def _dynamic_axes(encoder: LoadedEncoder) -> dict[int, Any]:
    from torch.export import Dim

    return {
        0: Dim(BATCH_AXIS, min=1, max=_LARGEST_BATCH),
        1: Dim(SEQUENCE_AXIS, min=1, max=encoder.spec.max_seq_length),
    }


def _export_error(encoder: LoadedEncoder, error: Exception) -> ExportError:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return ExportError(
        f"{encoder.spec.model_id} ({encoder.spec.architecture}) cannot be exported to ONNX",
        why=f"{type(cause).__name__}: {' '.join(lines[-_LINES_OF_CAUSE:])}",
        hint="torch.export does not manage this architecture; another of its family may do",
    )


@contextmanager
def _broadcast_masks() -> Iterator[None]:
    """Give eager attention masks that broadcast over queries instead of being gathered.

    Transformers builds its masks from index functions, which become Range, Expand and GatherND
    over [batch, 1, queries, keys]. A padding mask is the same for every query, so
    [batch, 1, 1, keys] says as much, in four nodes that every runtime fuses.
    """
    from transformers import masking_utils

    masks = masking_utils.ALL_MASK_ATTENTION_FUNCTIONS
    masks["eager"] = _broadcast_mask
    try:
        yield
    finally:
        del masks["eager"]


def _broadcast_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    *,
    q_offset: int = 0,
    kv_offset: int = 0,
    mask_function: Any = None,  # noqa: ANN401
    attention_mask: Tensor | None = None,
    dtype: Any = None,  # noqa: ANN401
    use_vmap: bool = False,
    **other: Any,  # noqa: ANN401
) -> Tensor:
    """Build an additive mask: 0 where attention is allowed, the lowest number elsewhere.

    Args as in `transformers.masking_utils.eager_mask` (transformers 5.23). Whatever is not a
    padding mask over an index-based pattern is left to the original.

    Returns:
        [batch_size, 1, 1 or q_length, kv_length], in `dtype`.
    """
    import torch
    from transformers import masking_utils

    if attention_mask is None or use_vmap or not _starts_at_zero(q_offset, kv_offset):
        return masking_utils.eager_mask(
            batch_size,
            q_length,
            kv_length,
            q_offset=q_offset,
            kv_offset=kv_offset,
            mask_function=mask_function,
            attention_mask=attention_mask,
            dtype=dtype,
            use_vmap=use_vmap,
            **other,
        )
    allowed = attention_mask[:, None, None, :].to(torch.bool)
    if mask_function is not masking_utils.bidirectional_mask_function:
        pattern = masking_utils.sdpa_mask(
            1,
            q_length,
            kv_length,
            mask_function=mask_function,
            attention_mask=None,
            allow_is_causal_skip=False,
            allow_is_bidirectional_skip=False,
            device=attention_mask.device,
        )
        allowed = allowed & pattern
    zero = torch.zeros((), dtype=dtype, device=attention_mask.device)
    return torch.where(allowed, zero, torch.finfo(dtype).min)


def _starts_at_zero(*offsets: object) -> bool:
    return all(isinstance(offset, int) and offset == 0 for offset in offsets)
