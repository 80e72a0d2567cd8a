"""PyTorch passes the conformance suite."""

from __future__ import annotations

import checks
import pytest
from conformance import TargetConformance
from subjects import NUM_THREADS, Subject
from tiny_graph import write_tiny_graph

from targets.pytorch.variants import COMPILE
from targets.registry import BUILT_IN, open_device

pytest.importorskip("torchao", reason="pip install 'embedding-exporter[torch]'")
pytest.importorskip("bitsandbytes", reason="pip install 'embedding-exporter[torch]'")

MIN_COSINE = 0.85
"""Four-bit weights of layers this small: NF4 .866 at worst on a CPU with AVX512-BF16, packed for it
or not; int8 stays above 0.99. Another model's embeddings are nowhere near (the suite's twin)."""


class TestTorch(TargetConformance):
    subject = Subject(
        entry_point=BUILT_IN["torch"],
        sdk=("torch", "transformers", "torchao", "bitsandbytes"),
        adapter_packages=frozenset({"torch", "transformers", "safetensors"}),
        min_cosine=MIN_COSINE,
    )

    def test_variants_are_the_same_artifact(self, target, workshop):
        """Without torch.compile, which takes its time: see `test_torch_compiled.py`."""
        plan = workshop.plan(target, workshop.built(target, workshop.recipes(target)[0]))
        with open_device("local").start(plan, NUM_THREADS) as runner:
            expected = runner.embed(workshop.tokens)
        for variant in target.variants(plan, NUM_THREADS):
            if variant.plan.options[COMPILE] == "off":
                with open_device("local").start(variant.plan, variant.num_threads) as runner:
                    checks.check_embeddings(runner.embed(workshop.tokens), expected, 0.9999)

    def test_other_weights_are_caught(self, target, workshop, tmp_path):
        """The suite's own twin: an artifact of another encoder is not taken for this one."""
        other = write_tiny_graph(tmp_path, seed=1)
        baseline = workshop.recipes(target)[0]
        artifact = target.compile(workshop.request(baseline, "other", other.artifact))
        plan = workshop.plan(target, artifact)
        with open_device("local").start(plan, NUM_THREADS) as runner:
            rows = runner.embed(workshop.tokens)
        with pytest.raises(AssertionError, match="cosine"):
            checks.check_embeddings(rows, workshop.graph.embed(workshop.tokens), MIN_COSINE)
