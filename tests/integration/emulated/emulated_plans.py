"""Plans for ONNX Runtime: its adapter without any choice of options."""

from __future__ import annotations

from pathlib import Path

from contract.tiny_graph import PAD_ID

import targets.onnxruntime.session
from targets.contract import RunPlan


def make_plan(
    model: Path, inputs: tuple[str, ...], embedding_dim: int, max_seq_length: int
) -> RunPlan:
    return RunPlan(
        adapter=Path(targets.onnxruntime.session.__file__),
        model=model,
        inputs=inputs,
        output="sentence_embedding",
        pad_token_id=PAD_ID,
        embedding_dim=embedding_dim,
        max_seq_length=max_seq_length,
    )
