"""Every check of the conformance suite passes a good target and fails one that breaks it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import checks
import fake_targets
import numpy as np
import pytest
from subjects import MACHINES, Subject, Workshop
from tiny_graph import write_tiny_graph

from targets.contract import Target, variants_of

MACHINE = MACHINES["AMX"]


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(folder=tmp_path, graph=write_tiny_graph(tmp_path), hardware=MACHINE)


def subject_of(kind: str) -> Subject:
    return Subject(
        entry_point=f"fake_targets:{kind}",
        sdk=(fake_targets.SDK,),
        adapter_packages=frozenset({"onnxruntime"}),
        search_path=(str(Path(__file__).parent),),
    )


def int8_of(target: Target, workshop: Workshop):
    return workshop.recipes(target)[1]


def plan_of(target: Target, workshop: Workshop):
    return workshop.plan(target, workshop.built(target, int8_of(target, workshop)))


Check = Callable[[Subject, Target, Workshop], None]
CHECKS: dict[str, Check] = {
    "spec needs no sdk": lambda s, t, w: checks.check_spec_needs_no_sdk(s),
    "probe without sdk": lambda s, t, w: checks.check_probe_without_sdk(s),
    "spec": lambda s, t, w: checks.check_spec(t),
    "probe": lambda s, t, w: checks.check_probe(t, MACHINE),
    "probe bare": lambda s, t, w: checks.check_probe_bare_device(t, MACHINE),
    "probe other": lambda s, t, w: checks.check_probe_other_architecture(t, MACHINE),
    "candidates": lambda s, t, w: checks.check_candidates(t, w.graph.artifact, MACHINE),
    "artifact": lambda s, t, w: checks.check_artifact(t, w, int8_of(t, w)),
    "deterministic": lambda s, t, w: checks.check_deterministic(t, w, int8_of(t, w)),
    "progress": lambda s, t, w: checks.check_progress(t, w, int8_of(t, w)),
    "foreign": lambda s, t, w: checks.check_refuses_foreign_recipe(t, w),
    "unmatched": lambda s, t, w: checks.check_refuses_unmatched_override(t, w, int8_of(t, w)),
    "plan": lambda s, t, w: checks.check_plan(t, w, w.built(t, int8_of(t, w))),
    "variants": lambda s, t, w: checks.check_variants(t, plan_of(t, w), 2),
    "shipping": lambda s, t, w: checks.check_shipping(t, w.built(t, int8_of(t, w))),
    "adapter": lambda s, t, w: checks.check_adapter(s, plan_of(t, w)),
}

BROKEN = [
    ("spec needs no sdk", "ImportsItsSdk", "ImportError"),
    ("spec needs no sdk", "ImportsTorch", "torch"),
    ("probe without sdk", "OptimistWithoutSdk", "says ok"),
    ("probe without sdk", "NoHint", "something is missing"),
    ("spec", "UnknownPrecision", "."),
    ("spec", "MisspelledMachine", "arm64"),
    ("spec", "NoMachine", "."),
    ("spec", "NumpyAsRuntime", "every device has numpy"),
    ("spec", "ModuleAsDistribution", "no distribution's name"),
    ("probe", "NoReason", "without a reason"),
    ("probe", "WrongFingerprint", "."),
    ("probe", "NeverReady", "patience"),
    ("probe", "AsksForMore", "a-compiler"),
    ("probe bare", "OptimistOnBareDevices", "without the runtime is ok"),
    ("probe bare", "DoesNotSayWhere", "does not say where"),
    ("probe bare", "DoesNotSayWhat", "good-runtime is not named"),
    ("probe bare", "DoesNotSayHow", "how to mend"),
    ("probe bare", "MissesNothing", "needs nothing"),
    ("probe other", "RefusesItsOwn", "not ok: "),
    ("probe other", "SilentElsewhere", "without a reason"),
    ("probe other", "ThinksItIsAtHome", "tells of another"),
    ("candidates", "NoBaseline", "."),
    ("candidates", "DoubleName", "used twice"),
    ("candidates", "NoWhy", "does not say why"),
    ("candidates", "BeyondItsSpec", "."),
    ("candidates", "IntegersAsFloat", "."),
    ("candidates", "UnknownQuantizer", "magic"),
    ("candidates", "QuantizedByNobody", "."),
    ("candidates", "QdqWithoutScheme", "scheme"),
    ("candidates", "SchemeOfNobody", "scheme"),
    ("artifact", "WrongHash", "does not hash"),
    ("artifact", "StrayFile", "nobody claims"),
    ("artifact", "OutsideFile", "lies outside"),
    ("artifact", "OtherSource", "."),
    ("deterministic", "Counting", "other bytes"),
    ("deterministic", "OrderMatters", "other bytes"),
    ("deterministic", "PathInside", "other bytes"),
    ("progress", "ProgressBack", "went back"),
    ("progress", "ProgressBeyond", "."),
    ("foreign", "TakesAnything", "was compiled"),
    ("foreign", "RefusesNamelessly", "does not name"),
    ("foreign", "LeavesRests", "left files"),
    ("unmatched", "TakesAnything", "was compiled"),
    ("unmatched", "RefusesNamelessly", "does not name"),
    ("plan", "MissingModel", "."),
    ("plan", "ForgetsAnInput", "."),
    ("plan", "NumberAsOption", "."),
    ("variants", "VariantsOfOneName", "used twice"),
    ("variants", "VariantWithoutWhy", "does not say why"),
    ("variants", "VariantOfAnotherModel", "model was changed"),
    ("variants", "VariantOfAnotherOutput", "output was changed"),
    ("variants", "VariantOfFewerInputs", "inputs was changed"),
    ("variants", "VariantOfNothing", "varies nothing"),
    ("variants", "VariantOfMoreThreads", "nobody has"),
    ("variants", "VariantOfNoOptions", "left to the runtime"),
    ("variants", "VariantsInTurns", "differently"),
    ("shipping", "ShipsOutside", "outside"),
    ("shipping", "ShipsWhatIsNotThere", "."),
    ("shipping", "ShipsTwiceToOnePlace", "share a place"),
    ("shipping", "ShipsHalf", "not the files"),
    ("adapter", "GreedyAdapter", "targets"),
    ("adapter", "GreedyPart", "targets"),
    ("adapter", "NamelessRuntime", "imports onnxruntime"),
]


def run_check(name: str, kind: str, workshop: Workshop) -> None:
    CHECKS[name](subject_of(kind), getattr(fake_targets, kind)(), workshop)


@pytest.mark.parametrize("name", CHECKS)
def test_a_good_target_passes(name, workshop):
    run_check(name, "GoodTarget", workshop)


@pytest.mark.parametrize(("name", "kind", "words"), BROKEN)
def test_a_broken_promise_is_caught(name, kind, words, workshop):
    with pytest.raises(AssertionError, match=words):
        run_check(name, kind, workshop)


def test_every_check_has_a_twin():
    assert {name for name, _, _ in BROKEN} == set(CHECKS)


def test_candidates_that_need_a_graph_are_caught(workshop):
    with pytest.raises(AttributeError):
        run_check("candidates", "NeedsAGraph", workshop)


def test_a_probe_that_raises_is_caught():
    class Raising(fake_targets.GoodTarget):
        def probe(self, device):
            return device.hardware() if device.name == "broken" else super().probe(device)

    with pytest.raises(OSError, match="no route"):
        checks.check_probe(Raising(), MACHINE)


@pytest.mark.parametrize("damage", ["rows swapped", "not finite", "float64", "one row less"])
def test_wrong_embeddings_are_caught(workshop, damage):
    good = workshop.graph.embed(workshop.tokens).astype(np.float32)
    bad = {
        "rows swapped": good[::-1],
        "not finite": np.where(np.arange(len(good))[:, None] == 3, np.nan, good),
        "float64": good.astype(np.float64),
        "one row less": good[1:],
    }[damage]
    checks.check_embeddings(good, workshop.graph.embed(workshop.tokens), 0.999999)
    with pytest.raises(AssertionError):
        checks.check_embeddings(bad, workshop.graph.embed(workshop.tokens), 0.99)


@pytest.mark.parametrize("name", ["spec", "probe", "probe bare"])
def test_a_target_that_needs_nothing_on_the_device_passes(name, workshop):
    run_check(name, "NeedsNothingThere", workshop)


def test_a_target_without_variants_passes(workshop):
    run_check("variants", "WithoutVariants", workshop)
    target = fake_targets.WithoutVariants()
    assert variants_of(target, plan_of(target, workshop), 2) == ()
    assert isinstance(target, Target)
