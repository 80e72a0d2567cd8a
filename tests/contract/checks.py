"""What every target promises, each as a function that raises AssertionError when it is broken.

`conformance.TargetConformance` runs them as tests; `test_checks_catch.py` proves that each of
them fails on a target that breaks the promise.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Collection, Iterable
from dataclasses import replace
from importlib.metadata import packages_distributions
from pathlib import PurePosixPath
from typing import get_args

import numpy as np
from stand_ins import BareDevice, BrokenDevice, DeviceLike
from subjects import Subject, Workshop, in_child_without_sdk
from tiny_graph import PAD_ID

from targets.contract import (
    PRECISIONS,
    Availability,
    CompiledArtifact,
    CompileRequest,
    Hardware,
    LayerOverride,
    OnnxArtifact,
    Preparable,
    Quantizer,
    Recipe,
    RunPlan,
    Target,
    variants_of,
)
from targets.errors import CompileError, ConfigError, ExporterError
from targets.hashing import sha256_file

NO_LAYER = "no.such.layer.*"
MACHINE_NAMES = ("x86_64", "aarch64", "armv7l", "riscv64", "ppc64le", "s390x")
"""Architectures as Linux names them (`uname -m`), which is what `Hardware.architecture` holds."""
ACCELERATORS = ("cuda",)
"""What artifacts may be prepared for besides, on any machine."""
FOREIGN = Recipe(
    name="from-elsewhere", precision="int8", float_precision="float32", quantizer="none", why="-"
)
"""int8 that nobody quantizes: no target can build it."""


# ----------------------------------------------------------------------- static facts


def check_spec_needs_no_sdk(subject: Subject) -> None:
    """The spec, and the recipes for any machine, are there without the runtime installed."""
    answer = in_child_without_sdk(
        subject,
        "print(json.dumps({'name': target.spec.name, 'loaded': sorted(set(sys.modules) & heavy)}))",
    )
    assert answer["name"] == subject.make().spec.name
    assert answer["loaded"] == [], f"importing the target imports {answer['loaded']}"


def check_probe_without_sdk(subject: Subject) -> None:
    """Without its runtime a probe answers, and says how to mend it."""
    answer = in_child_without_sdk(
        subject,
        "from targets.registry import open_device\n"
        "found = target.probe(open_device('local'))\n"
        "print(json.dumps({'ok': found.ok, 'missing': list(found.missing)}))",
    )
    assert not answer["ok"], "a probe without the runtime says ok"
    assert any("pip install" in line for line in answer["missing"]), answer["missing"]


def check_spec(target: Target) -> None:
    """The spec is complete and every instance says the same."""
    assert isinstance(target, Target)
    assert type(target)().spec == target.spec
    assert re.fullmatch(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", target.spec.name), target.spec.name
    assert set(target.spec.precisions) <= set(PRECISIONS)
    assert "float32" in target.spec.precisions
    assert target.spec.vendor and target.spec.runtime and target.spec.extra
    assert target.spec.max_opset >= 17
    strange = set(target.spec.architectures) - {*MACHINE_NAMES, *ACCELERATORS}
    assert target.spec.architectures and not strange, f"architectures that no device has: {strange}"
    for name in target.spec.distributions:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name), f"{name} is no distribution's name"
    assert "numpy" not in target.spec.distributions, "every device has numpy"


# ------------------------------------------------------------------------------ probe


def check_probe(target: Target, hardware: Hardware) -> None:
    """A probe answers on a good device and on a broken one, and a no has a reason."""
    good = DeviceLike(_for(target, hardware), target.spec.distributions)
    for where in (good, BrokenDevice()):
        found = target.probe(where)
        assert isinstance(found, Availability)
        assert found.ok or found.missing, "not ok without a reason"
        assert all(isinstance(v, str) and v for v in found.tool_versions.values())
    assert not target.probe(BrokenDevice()).ok
    found = target.probe(good)
    assert found.ok, f"a device that has everything lacks {found.missing}"
    assert found.fingerprint == good.hardware().fingerprint
    strange = good.asked - set(target.spec.distributions)
    assert not strange, f"it asks a device for {strange}, which its spec does not name"


def check_probe_bare_device(target: Target, hardware: Hardware) -> None:
    """Where the device lacks the runtime, a probe says what it takes there."""
    bare = BareDevice(_for(target, hardware))
    found = target.probe(bare)
    if not target.spec.distributions:
        assert found.ok, "it needs nothing there, and misses something"
        return
    assert not found.ok, "a device without the runtime is ok"
    told = " ".join(found.missing)
    assert bare.name in told, f"it does not say where: {told}"
    for name in target.spec.distributions:
        assert name in told, f"{name} is not named: {told}"
    assert "pip install" in told, f"it does not say how to mend it: {told}"


def check_probe_other_architecture(target: Target, hardware: Hardware) -> None:
    """Asked of a device that is not like this one, a probe answers about that device.

    Whether artifacts fit an architecture is the spec's to say, and the core compares; a probe may
    refuse as well.
    """
    for architecture in MACHINE_NAMES:
        other = replace(hardware, architecture=architecture, features=frozenset())
        found = target.probe(DeviceLike(other, target.spec.distributions))
        assert found.ok or found.missing, f"not ok on {architecture} without a reason"
        assert found.ok or architecture not in target.spec.architectures, f"not ok: {found.missing}"
        if found.ok:
            assert found.fingerprint == other.fingerprint, f"on {architecture} it tells of another"


def _for(target: Target, hardware: Hardware) -> Hardware:
    """Return that machine, or one of an architecture that the target is made for."""
    made_for = target.spec.architectures
    if hardware.architecture in made_for:
        return hardware
    return replace(hardware, architecture=made_for[0], features=frozenset())


# ------------------------------------------------------------------------- candidates


def check_candidates(target: Target, graph: OnnxArtifact, hardware: Hardware) -> None:
    """Recipes begin with the baseline, have names of their own and reasons."""
    recipes = list(target.candidates(graph, hardware))
    first = recipes[0]
    assert (first.name, first.precision, first.float_precision) == ("float32",) * 3
    assert first.quantizer == "none" and not first.overrides and not first.requires
    names = [recipe.name for recipe in recipes]
    assert len(set(names)) == len(names), f"a name is used twice: {names}"
    for recipe in recipes:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", recipe.name), recipe.name
        assert len(recipe.why.split()) > 3, f"{recipe.name} does not say why"
        assert recipe.precision in target.spec.precisions
        assert recipe.float_precision in target.spec.precisions
        assert recipe.float_precision not in ("int8", "int4")
        assert recipe.quantizer in get_args(Quantizer), recipe.quantizer
        assert recipe.quantizer != "none" or recipe.precision not in ("int8", "int4")
        assert (recipe.scheme is None) == (recipe.quantizer != "qdq"), f"{recipe.name}: scheme"
    assert list(target.candidates(graph, hardware)) == recipes, "asked twice, answered differently"
    general = list(target.candidates(None, hardware))
    assert general[0] == first, "without a graph there is another baseline"


# ---------------------------------------------------------------------------- compile


def check_artifact(target: Target, workshop: Workshop, recipe: Recipe) -> None:
    """An artifact is what it says it is, and nothing else lies in its folder."""
    before = sha256_file(workshop.graph.artifact.path)
    artifact = workshop.built(target, recipe)
    folder = (workshop.folder / recipe.name).resolve()
    assert artifact.directory.resolve() == folder
    assert artifact.files, "no files"
    for file in artifact.files:
        path = (folder / file.path).resolve()
        assert path.is_relative_to(folder), f"{file.path} lies outside"
        assert sha256_file(path) == file.sha256, f"{file.path} does not hash to what it claims"
        assert path.stat().st_size == file.size_bytes
    present = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert present == {file.path for file in artifact.files}, "files that nobody claims"
    assert artifact.target == target.spec.name
    assert artifact.recipe == recipe
    assert artifact.built_from == workshop.graph.artifact.sha256
    assert artifact.compile_s > 0
    assert artifact.tool_versions, "no tool versions"
    assert sha256_file(workshop.graph.artifact.path) == before, "the source graph was changed"


def check_deterministic(
    target: Target, workshop: Workshop, recipe: Recipe, but_for: Collection[str] = ()
) -> None:
    """The same graph from another folder, texts in another order: the same bytes.

    Of files that the subject calls not reproducible, only names and sizes must be the same.
    """
    first = workshop.built(target, recipe)
    request = workshop.request(recipe, f"again-{recipe.name}", workshop.moved_graph())
    order = np.random.default_rng(3).permutation(len(request.calibration))
    again = target.compile(replace(request, calibration=request.calibration.select(order)))
    ours, theirs = (
        [replace(f, sha256="") if f.path in but_for else f for f in one.files]
        for one in (first, again)
    )
    assert ours == theirs, "compiled again, other bytes"


def check_progress(target: Target, workshop: Workshop, recipe: Recipe) -> None:
    """Progress only grows, never beyond its total, and ends there."""
    calls: list[tuple[int, int | None]] = []
    request = workshop.request(recipe, f"progress-{recipe.name}")
    target.compile(replace(request, progress=lambda done, total=None: calls.append((done, total))))
    done = [call[0] for call in calls]
    assert done == sorted(done), "progress went back"
    assert all(total is None or step <= total for step, total in calls)
    assert not calls or calls[-1][1] in (None, calls[-1][0]), f"ended at {calls[-1]}"


def check_refuses_foreign_recipe(target: Target, workshop: Workshop) -> None:
    """A recipe that the target cannot build is refused by name and leaves nothing behind."""
    request = workshop.request(FOREIGN, "foreign")
    message = _refusal(target, request)
    assert FOREIGN.name in message, f"the message does not name the recipe: {message}"
    assert not list(request.output_dir.iterdir()), "a refused recipe left files"


def check_refuses_unmatched_override(target: Target, workshop: Workshop, recipe: Recipe) -> None:
    """An override that matches no layer is named, not ignored."""
    strange = LayerOverride(pattern=NO_LAYER, precision=recipe.float_precision)
    asked = replace(recipe, overrides=(*recipe.overrides, strange))
    message = _refusal(target, workshop.request(asked, "unmatched"))
    assert NO_LAYER in message, f"the message does not name the pattern: {message}"


def _refusal(target: Target, request: CompileRequest) -> str:
    try:
        target.compile(request)
    except CompileError as error:
        return str(error)
    raise AssertionError(f"{request.recipe.name} was compiled")


# ----------------------------------------------------------------------- preparation


def check_probe_of_the_absent(target: Target) -> None:
    """Where its device is not, a probe says what is missing and does not raise."""
    found = target.probe(BrokenDevice())
    assert not found.ok and found.missing, "a device that does not answer is ok"
    assert all(isinstance(line, str) and line for line in found.missing)


def check_prepares_anywhere(target: Target) -> None:
    """Artifacts are made for a device that is told apart from one at hand."""
    assert isinstance(target, Preparable)
    assert not target.lacking_to_prepare(), target.lacking_to_prepare()
    hardware = target.prepared_hardware(())
    assert hardware == target.prepared_hardware(()), "asked twice, answered differently"
    assert hardware.architecture in target.spec.architectures
    assert hardware.num_cores == 0 and hardware.memory_bytes == 0, "it tells of what is not here"


def check_refuses_unknown_device(target: Target) -> None:
    """A device that nobody makes is refused by name."""
    assert isinstance(target, Preparable)
    try:
        target.prepared_hardware(("1.0",))
    except ConfigError as error:
        assert "1.0" in str(error), f"the message does not name it: {error}"
        return
    raise AssertionError("a device that nobody makes is prepared for")


def check_structure(target: Target, artifact: CompiledArtifact) -> None:
    """What a compiler told of an artifact names its source and has counts; None is an answer."""
    assert isinstance(target, Preparable)
    found = target.structure(artifact)
    if found is not None:
        assert found.source
        assert all(row.count > 0 for row in found.rows)


def check_is_not_run_unfinished(target: Target, workshop: Workshop, prepared: Recipe) -> None:
    """Nothing is run as its device's that the device has not finished."""
    artifact = workshop.built(target, prepared)
    try:
        target.run_plan(artifact, workshop.graph.artifact, PAD_ID, 1)
    except ExporterError as error:
        assert error.hint, "it does not say what to do"
        return
    raise AssertionError("an artifact that is prepared only has a plan to run")


# --------------------------------------------------------------------------- run plan


def check_plan(target: Target, workshop: Workshop, artifact: CompiledArtifact) -> None:
    """The plan names what is there and leaves no option to the runtime's mood."""
    graph, plan = workshop.graph.artifact, workshop.plan(target, artifact)
    assert plan.model == artifact.directory / artifact.files[0].path
    assert plan.model.is_file()
    assert plan.inputs == tuple(tensor.name for tensor in graph.inputs)
    assert plan.output in {tensor.name for tensor in graph.outputs}
    assert (plan.pad_token_id, plan.embedding_dim) == (PAD_ID, graph.embedding_dim)
    assert plan.max_seq_length == graph.max_seq_length
    assert plan.length_multiple >= 1
    assert plan.max_batch_tokens >= plan.length_multiple
    assert all(isinstance(v, str) for pair in plan.options.items() for v in pair)


def check_variants(target: Target, plan: RunPlan, num_threads: int) -> None:
    """Variants have names and reasons of their own and run the same artifact; none is fine."""
    variants = variants_of(target, plan, num_threads)
    names = [variant.name for variant in variants]
    assert len(set(names)) == len(names), f"a name is used twice: {names}"
    kept = ("adapter", "model", "inputs", "output", "pad_token_id", "embedding_dim")
    for variant in variants:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", variant.name), variant.name
        assert len(variant.why.split()) > 3, f"{variant.name} does not say why"
        for field in (*kept, "max_seq_length"):
            assert getattr(variant.plan, field) == getattr(plan, field), f"{field} was changed"
        assert (variant.plan, variant.num_threads) != (plan, num_threads), "it varies nothing"
        assert 1 <= variant.num_threads <= num_threads, "threads that nobody has"
        assert variant.plan.length_multiple >= 1
        assert variant.plan.max_batch_tokens >= variant.plan.length_multiple
        assert set(variant.plan.options) >= set(plan.options), "an option was left to the runtime"
        assert all(isinstance(v, str) for pair in variant.plan.options.items() for v in pair)
    assert variants_of(target, plan, num_threads) == variants, "asked twice, answered differently"


def check_shipping(target: Target, artifact: CompiledArtifact) -> None:
    """Every file has a place in the bundle, the entry file first, no two share one."""
    places = list(target.ship(artifact))
    files = [file.path for file in artifact.files]
    assert places[0][0] == files[0], f"the entry file {files[0]} is not first"
    assert {source for source, _ in places} == set(files), "not the files that there are"
    destinations = [PurePosixPath(place) for _, place in places]
    assert len(set(destinations)) == len(destinations), "two files share a place"
    for place in destinations:
        assert not place.is_absolute() and ".." not in place.parts, f"{place} is outside"


def check_adapter(subject: Subject, plan: RunPlan) -> None:
    """The adapter defines `open_session`; with its parts it imports nothing of ours."""
    imported = check_adapter_alone(subject, plan)
    origins = packages_distributions()
    named = set(subject.make().spec.distributions)
    for package in imported & subject.adapter_packages:
        there = {origin.lower() for origin in origins.get(package, [])}
        assert there & named, f"the adapter imports {package}, spec.distributions names {named}"


def check_adapter_alone(subject: Subject, plan: RunPlan) -> set[str]:
    """See `check_adapter`; returns what is imported."""
    tree = ast.parse(plan.adapter.read_text("utf-8"))
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert "open_session" in functions
    allowed = sys.stdlib_module_names | {"numpy"} | subject.adapter_packages
    parts = [plan.adapter.with_name(name).read_text("utf-8") for name in plan.adapter_parts]
    imported = {name for one in (tree, *map(ast.parse, parts)) for name in _imports(one)}
    strangers = imported - allowed
    assert not strangers, f"the adapter imports {sorted(strangers)}"
    return imported


def _imports(tree: ast.AST) -> Iterable[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or ".").split(".")[0] if node.level == 0 else "."


def check_embeddings(rows: np.ndarray, expected: np.ndarray, min_cosine: float) -> None:
    """Embeddings on the device are those of the model."""
    assert rows.shape == expected.shape
    assert rows.dtype == np.float32
    assert np.isfinite(rows).all()
    norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(expected, axis=1)
    worst = float(((rows * expected).sum(axis=1) / norms).min())
    assert worst >= min_cosine, f"a text has cosine {worst:.6f} to the model's own embedding"
