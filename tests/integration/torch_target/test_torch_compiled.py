"""torch.compile is another way of running the same artifact."""

from __future__ import annotations

import numpy as np
import pytest
from contract.tiny_graph import make_tokens

from targets.pytorch.loading import compilers, has_compiler

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not has_compiler(), reason=f"no C++ compiler: {', '.join(compilers())}"),
]


def test_compiled_blocks_give_the_same_embeddings(bench, recipes):
    """Of every length, by one compiled function for all blocks."""
    import torch

    artifact = bench.build(recipes("int8-weights"))
    torch._dynamo.utils.counters.clear()
    session = bench.open(artifact, compile="dynamic")
    rows = np.concatenate([session.run(bench.inputs(ids)) for ids in make_tokens()])
    expected = bench.embed(artifact)
    assert (rows * expected).sum(axis=1).min() > 0.9999
    assert session.options()["compile"] == "dynamic"
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1, "nothing was compiled"
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 3, "a graph for every shape"
