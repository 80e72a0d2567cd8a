"""A vendor's target, installed from its own distribution, passes the conformance suite."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import checks
import onnx
import pytest
import vendors
from conformance import TargetConformance
from subjects import NUM_THREADS, Subject
from tiny_graph import write_tiny_graph

from targets.contract import LayerOverride
from targets.registry import load_target, open_device

pytest.importorskip("onnxruntime")
MODULES = ("acme_npu", "acme_npu_session")


class TestAcmeNpu(TargetConformance):
    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def installed(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
        scratch = tmp_path_factory.mktemp("vendor")
        place = vendors.install(scratch / "installed", scratch)
        cls.subject = Subject(
            entry_point="acme_npu:AcmeNpu",
            sdk=("onnxruntime",),
            adapter_packages=frozenset({"onnxruntime"}),
            search_path=(str(place),),
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(place)
            yield place
        for name in MODULES:
            sys.modules.pop(name, None)

    def test_it_is_found_through_its_entry_point(self, installed, target):
        found = load_target("acme-npu")
        assert type(found) is type(target)
        assert Path(sys.modules["acme_npu"].__file__).parent == installed
        owner = metadata.distribution("acme-npu")
        assert Path(str(owner.locate_file(""))).resolve() == installed.resolve()

    def test_it_imports_the_contract_and_the_errors_only(self):
        source = (vendors.VENDOR / "acme_npu.py").read_text("utf-8")
        ours = {line.split()[1] for line in source.splitlines() if line.startswith("from targets")}
        assert ours == {"targets.contract", "targets.errors"}

    def test_layers_kept_in_float_stay_so(self, target, workshop):
        """An override changes the artifact by what it names."""

        recipe = workshop.recipes(target)[1]
        kept = LayerOverride(pattern="encoder.layer.0.*", precision="float32")
        mixed = replace(recipe, name="mixed", overrides=(kept,))
        counts = []
        for one in (recipe, mixed):
            artifact = workshop.built(target, one)
            nodes = onnx.load(artifact.directory / artifact.files[0].path).graph.node
            counts.append(sum(node.op_type == "MatMulNBits" for node in nodes))
        assert counts == [12, 6]

    def test_integers_really_run(self, target, workshop):
        plan = workshop.plan(target, workshop.built(target, workshop.recipes(target)[1]))
        with open_device("local").start(plan, NUM_THREADS) as runner:
            rows = runner.inspect(workshop.tokens)
        counts = {row.dtype: row.count for row in rows if row.op_type == "MatMulNBits"}
        assert counts == {"int8": 12}

    def test_other_weights_are_caught(self, target, workshop, tmp_path):
        other = write_tiny_graph(tmp_path, seed=1)
        artifact = target.compile(
            workshop.request(workshop.recipes(target)[0], "other", other.artifact)
        )
        plan = workshop.plan(target, artifact)
        with open_device("local").start(plan, NUM_THREADS) as runner:
            rows = runner.embed(workshop.tokens)
        with pytest.raises(AssertionError, match="cosine"):
            checks.check_embeddings(rows, workshop.graph.embed(workshop.tokens), 0.99)
