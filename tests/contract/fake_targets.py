"""A target that keeps every promise without any runtime, and ones that break one each.

The standard library's `colorsys` plays the SDK.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from targets.contract import (
    ArtifactFile,
    Availability,
    CompiledArtifact,
    CompileRequest,
    QdqScheme,
    Recipe,
    RunPlan,
    RuntimeVariant,
    TargetSpec,
)
from targets.errors import CompileError
from targets.hashing import sha256_file

SDK = "colorsys"
_HERE = Path(__file__).parent
_COUNTER = itertools.count()


class GoodTarget:
    spec = TargetSpec(
        name="good",
        vendor="nobody",
        runtime="none",
        precisions=("float32", "int8"),
        max_opset=20,
        artifact_kind="JSON",
        extra="good",
        distributions=("good-runtime",),
    )
    adapter = _HERE / "fake_adapter.py"

    def probe(self, device) -> Availability:
        try:
            __import__(SDK)
            hardware = device.hardware()
            there = device.distributions(self.spec.distributions)
        except ImportError:
            return Availability(ok=False, missing=("pip install 'embedding-exporter[good]'",))
        except OSError as error:
            return Availability(ok=False, missing=(str(error),))
        if hardware.architecture not in self.spec.architectures:
            reason = f"not made for {hardware.architecture}"
            return Availability(ok=False, missing=(reason,))
        if not there and self.spec.distributions:
            reason = f"{device.name} has no good-runtime: pip install good-runtime there"
            return Availability(ok=False, missing=(reason,))
        return Availability(ok=True, fingerprint=hardware.fingerprint)

    def candidates(self, graph, hardware) -> list[Recipe]:
        why = "this is what everything is compared with"
        baseline = Recipe(name="float32", precision="float32", float_precision="float32", why=why)
        return [baseline, replace(baseline, name="int8", precision="int8", quantizer="nncf_ptq")]

    def compile(self, request: CompileRequest) -> CompiledArtifact:
        recipe = request.recipe
        if recipe.precision == "int8" and recipe.quantizer == "none":
            raise CompileError(f"recipe {recipe.name!r} cannot be built")
        for override in recipe.overrides:
            raise CompileError(f"no layer matches {override.pattern!r}")
        path = request.output_dir / "model.json"
        path.write_text(json.dumps(self.content(request)))
        request.progress(1, 1)
        return self.describe(request, path)

    def content(self, request: CompileRequest) -> object:
        return [request.graph.sha256, request.recipe.name]

    def describe(self, request: CompileRequest, *paths: Path) -> CompiledArtifact:
        files = (
            ArtifactFile(path=p.name, sha256=sha256_file(p), size_bytes=p.stat().st_size)
            for p in paths
        )
        return CompiledArtifact(
            directory=request.output_dir,
            files=tuple(files),
            target=self.spec.name,
            recipe=request.recipe,
            built_from=request.graph.sha256,
            device_requirement=(),
            tool_versions={"good": "1"},
            compile_s=0.1,
        )

    def run_plan(self, artifact, graph, pad_token_id, num_threads) -> RunPlan:
        return RunPlan(
            adapter=self.adapter,
            model=artifact.directory / artifact.files[0].path,
            inputs=tuple(tensor.name for tensor in graph.inputs),
            output="sentence_embedding",
            pad_token_id=pad_token_id,
            embedding_dim=graph.embedding_dim,
            max_seq_length=graph.max_seq_length,
            options={"threads": str(num_threads)},
        )

    def variants(self, plan, num_threads) -> list[RuntimeVariant]:
        why = "larger batches pay for a call less often"
        larger = replace(plan, max_batch_tokens=4096)
        return [RuntimeVariant(name="large", plan=larger, num_threads=num_threads, why=why)]

    def ship(self, artifact) -> list[tuple[str, str]]:
        return [(file.path, f"good/{file.path}") for file in artifact.files]


class WithoutVariants(GoodTarget):
    variants = None


class NeedsNothingThere(GoodTarget):
    spec = replace(GoodTarget.spec, distributions=())


# ------------------------------------------------------------------ one promise broken


def _in_child_without_sdk() -> bool:
    return sys.modules.get(SDK, sys) is None


class ImportsItsSdk(GoodTarget):
    def __init__(self) -> None:
        if _in_child_without_sdk():
            raise ImportError(SDK)


class ImportsTorch(GoodTarget):
    def __init__(self) -> None:
        if _in_child_without_sdk():
            sys.modules["torch"] = sys


class NoHint(GoodTarget):
    def probe(self, device) -> Availability:
        found = super().probe(device)
        return found if found.ok else replace(found, missing=("something is missing",))


class OptimistWithoutSdk(GoodTarget):
    def probe(self, device) -> Availability:
        return Availability(ok=True, fingerprint=device.hardware().fingerprint)


class NoReason(GoodTarget):
    def probe(self, device) -> Availability:
        found = super().probe(device)
        return found if found.ok else replace(found, missing=())


class WrongFingerprint(GoodTarget):
    def probe(self, device) -> Availability:
        return replace(super().probe(device), fingerprint="0" * 16)


class UnknownPrecision(GoodTarget):
    spec = replace(GoodTarget.spec, precisions=("float32", "fp8"))


class MisspelledMachine(GoodTarget):
    spec = replace(GoodTarget.spec, architectures=("x86_64", "arm64"))


class NoMachine(GoodTarget):
    spec = replace(GoodTarget.spec, architectures=())


class NumpyAsRuntime(GoodTarget):
    spec = replace(GoodTarget.spec, distributions=("numpy",))


class ModuleAsDistribution(GoodTarget):
    spec = replace(GoodTarget.spec, distributions=("good.runtime",))


class AsksForMore(GoodTarget):
    def probe(self, device) -> Availability:
        found = super().probe(device)
        if found.ok:
            device.distributions(("a-compiler",))
        return found


class NeverReady(GoodTarget):
    def probe(self, device) -> Availability:
        return Availability(ok=False, missing=("pip install patience",))


class OptimistOnBareDevices(GoodTarget):
    def probe(self, device) -> Availability:
        found = super().probe(device)
        lacks_runtime = "has no good-runtime" in " ".join(found.missing)
        return Availability(ok=True) if lacks_runtime else found


class _BareAnswer(GoodTarget):
    """Its answer where the runtime is missing, worded otherwise."""

    words = ""

    def probe(self, device) -> Availability:
        found = super().probe(device)
        lacks_runtime = "has no good-runtime" in " ".join(found.missing)
        return replace(found, missing=(self.words,)) if lacks_runtime else found


class DoesNotSayWhere(_BareAnswer):
    words = "pip install good-runtime"


class DoesNotSayWhat(_BareAnswer):
    words = "pip install everything on emulated:stand-in"


class DoesNotSayHow(_BareAnswer):
    words = "emulated:stand-in has no good-runtime"


class MissesNothing(NeedsNothingThere):
    def probe(self, device) -> Availability:
        if device.distributions(("good-runtime",)):
            return super().probe(device)
        return Availability(ok=False, missing=("something",))


class RefusesItsOwn(GoodTarget):
    def probe(self, device) -> Availability:
        if device.hardware().architecture == "aarch64":
            return Availability(ok=False, missing=("not made for aarch64",))
        return super().probe(device)


class SilentElsewhere(GoodTarget):
    def probe(self, device) -> Availability:
        found = super().probe(device)
        return found if found.ok else replace(found, missing=())


class ThinksItIsAtHome(GoodTarget):
    def probe(self, device) -> Availability:
        found = super().probe(device)
        home = replace(device.hardware(), architecture="x86_64")
        return replace(found, fingerprint=home.fingerprint)


class NoBaseline(GoodTarget):
    def candidates(self, graph, hardware) -> list[Recipe]:
        return super().candidates(graph, hardware)[::-1]


class DoubleName(GoodTarget):
    def candidates(self, graph, hardware) -> list[Recipe]:
        recipes = super().candidates(graph, hardware)
        return [*recipes, recipes[-1]]


class NoWhy(GoodTarget):
    def candidates(self, graph, hardware) -> list[Recipe]:
        return [replace(recipe, why="fast") for recipe in super().candidates(graph, hardware)]


class BeyondItsSpec(GoodTarget):
    def candidates(self, graph, hardware) -> list[Recipe]:
        recipes = super().candidates(graph, hardware)
        return [*recipes, replace(recipes[0], name="half", precision="float16")]


class NeedsAGraph(GoodTarget):
    def candidates(self, graph, hardware) -> list[Recipe]:
        recipes = super().candidates(graph, hardware)
        return recipes if graph.opset >= 17 else recipes[:1]


class _OneMore(GoodTarget):
    """A further recipe that is wrong in one way."""

    changes: ClassVar[Mapping[str, object]] = {}

    def candidates(self, graph, hardware) -> list[Recipe]:
        recipes = super().candidates(graph, hardware)
        return [*recipes, replace(recipes[-1], name="more", **self.changes)]


class IntegersAsFloat(_OneMore):
    changes: ClassVar = {"float_precision": "int8"}


class UnknownQuantizer(_OneMore):
    changes: ClassVar = {"quantizer": "magic"}


class QuantizedByNobody(_OneMore):
    changes: ClassVar = {"quantizer": "none"}


class QdqWithoutScheme(_OneMore):
    changes: ClassVar = {"quantizer": "qdq"}


class SchemeOfNobody(_OneMore):
    changes: ClassVar = {"scheme": QdqScheme()}


class WrongHash(GoodTarget):
    def describe(self, request, *paths) -> CompiledArtifact:
        artifact = super().describe(request, *paths)
        return replace(artifact, files=(replace(artifact.files[0], sha256="0" * 64),))


class StrayFile(GoodTarget):
    def describe(self, request, *paths) -> CompiledArtifact:
        (request.output_dir / "notes.txt").write_text("?")
        return super().describe(request, *paths)


class OutsideFile(GoodTarget):
    def describe(self, request, *paths) -> CompiledArtifact:
        outside = request.output_dir.parent / "outside.json"
        outside.write_text("[]")
        artifact = super().describe(request, outside)
        moved = replace(artifact.files[0], path="../outside.json")
        return replace(artifact, files=(moved,))


class OtherSource(GoodTarget):
    def describe(self, request, *paths) -> CompiledArtifact:
        return replace(super().describe(request, *paths), built_from="0" * 64)


class Counting(GoodTarget):
    def content(self, request) -> object:
        return next(_COUNTER)


class OrderMatters(GoodTarget):
    def content(self, request) -> object:
        return request.calibration.ids[:8].tolist()


class PathInside(GoodTarget):
    def content(self, request) -> object:
        return str(request.graph.path)


class ProgressBack(GoodTarget):
    def content(self, request) -> object:
        request.progress(2, 2)
        return super().content(request)


class ProgressBeyond(GoodTarget):
    def content(self, request) -> object:
        request.progress(1, 0)
        return super().content(request)


class TakesAnything(GoodTarget):
    def compile(self, request) -> CompiledArtifact:
        path = request.output_dir / "model.json"
        path.write_text("[]")
        return self.describe(request, path)


class RefusesNamelessly(GoodTarget):
    def compile(self, request) -> CompiledArtifact:
        raise CompileError("this cannot be built")


class LeavesRests(GoodTarget):
    def compile(self, request) -> CompiledArtifact:
        (request.output_dir / "half.bin").write_text("?")
        return super().compile(request)


class MissingModel(GoodTarget):
    def run_plan(self, artifact, graph, pad_token_id, num_threads) -> RunPlan:
        plan = super().run_plan(artifact, graph, pad_token_id, num_threads)
        return replace(plan, model=plan.model.with_name("other.json"))


class ForgetsAnInput(GoodTarget):
    def run_plan(self, artifact, graph, pad_token_id, num_threads) -> RunPlan:
        plan = super().run_plan(artifact, graph, pad_token_id, num_threads)
        return replace(plan, inputs=plan.inputs[:2])


class NumberAsOption(GoodTarget):
    def run_plan(self, artifact, graph, pad_token_id, num_threads) -> RunPlan:
        plan = super().run_plan(artifact, graph, pad_token_id, num_threads)
        return replace(plan, options={"threads": num_threads})


class VariantsOfOneName(GoodTarget):
    def variants(self, plan, num_threads) -> list[RuntimeVariant]:
        return super().variants(plan, num_threads) * 2


class _Varied(GoodTarget):
    """Its one variant, changed."""

    def changed(self, variant: RuntimeVariant) -> RuntimeVariant:
        raise NotImplementedError

    def variants(self, plan, num_threads) -> list[RuntimeVariant]:
        return [self.changed(one) for one in super().variants(plan, num_threads)]


class VariantWithoutWhy(_Varied):
    def changed(self, variant) -> RuntimeVariant:
        return replace(variant, why="fast")


class VariantOfAnotherModel(_Varied):
    def changed(self, variant) -> RuntimeVariant:
        return replace(variant, plan=replace(variant.plan, model=Path("elsewhere.json")))


class VariantOfAnotherOutput(_Varied):
    def changed(self, variant) -> RuntimeVariant:
        return replace(variant, plan=replace(variant.plan, output="last_hidden_state"))


class VariantOfFewerInputs(_Varied):
    def changed(self, variant) -> RuntimeVariant:
        return replace(variant, plan=replace(variant.plan, inputs=variant.plan.inputs[:1]))


class VariantOfNothing(_Varied):
    def changed(self, variant) -> RuntimeVariant:
        return replace(variant, plan=replace(variant.plan, max_batch_tokens=2048))


class VariantOfMoreThreads(_Varied):
    def changed(self, variant) -> RuntimeVariant:
        return replace(variant, num_threads=64)


class VariantOfNoOptions(_Varied):
    def changed(self, variant) -> RuntimeVariant:
        return replace(variant, plan=replace(variant.plan, options={}))


class VariantsInTurns(_Varied):
    def changed(self, variant) -> RuntimeVariant:
        return replace(variant, name=f"large-{next(_COUNTER)}")


class ShipsOutside(GoodTarget):
    def ship(self, artifact) -> list[tuple[str, str]]:
        return [(file.path, f"../{file.path}") for file in artifact.files]


class ShipsWhatIsNotThere(GoodTarget):
    def ship(self, artifact) -> list[tuple[str, str]]:
        return [("other.json", "good/other.json")]


class ShipsTwiceToOnePlace(GoodTarget):
    def ship(self, artifact) -> list[tuple[str, str]]:
        return [(file.path, "good/model.json") for file in (*artifact.files, *artifact.files)]


class ShipsHalf(GoodTarget):
    def describe(self, request, *paths) -> CompiledArtifact:
        weights = request.output_dir / "weights.json"
        weights.write_text("[]")
        return super().describe(request, *paths, weights)

    def ship(self, artifact) -> list[tuple[str, str]]:
        return super().ship(artifact)[:1]


class GreedyAdapter(GoodTarget):
    adapter = _HERE / "greedy_adapter.py"


class GreedyPart(GoodTarget):
    def run_plan(self, *arguments) -> RunPlan:
        return replace(super().run_plan(*arguments), adapter_parts=("greedy_adapter.py",))


class NamelessRuntime(GoodTarget):
    adapter = _HERE / "onnx_adapter.py"
