"""Static int8 as one run wants it: what was asked for, what is done, what is left alone."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from contract.tiny_graph import FFN_DOWN_PATHS, LINEAR_PATHS, PAD_ID, make_tokens, write_tiny_graph

from exporter.config import Settings
from exporter.deliver.cache import Cache
from exporter.progress import SilentReporter
from exporter.steps import int8_forms
from exporter.steps.int8_forms import HELD_OUT_EVERY, hold_out
from exporter.steps.quantization import Quantization, is_superseded, quantize_layers
from exporter.steps.workspace import Workspace
from exporter.values import EncoderSpec
from targets.contract import Hardware, LayerOverride, OnnxArtifact, Recipe, TokenSequences
from targets.errors import ConfigError
from targets.openvino.recipes import recipes_for
from targets.pytorch.recipes import recipes_for as recipes_of_pytorch
from targets.quantization.plans_file import Prepared, load_prepared
from targets.tensorrt.recipes import recipes_for as tensorrt_recipes


def cpu(*features: str) -> Hardware:
    return Hardware(
        architecture="x86_64",
        vendor="",
        model_name="",
        microarchitecture="",
        features=frozenset(features),
        num_cores=1,
        memory_bytes=1 << 30,
    )


VNNI = cpu("avx2", "avx512f", "avx512_vnni")
AMX = cpu("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
AVX2 = cpu("avx2", "fma")
TOKENS = make_tokens(60)


class Steps(SilentReporter):
    """Keeps the titles of what was really done."""

    def __init__(self) -> None:
        self.titles: list[str] = []

    @contextmanager
    def step(self, title):
        self.titles.append(title)
        yield lambda done, total=None: None


@pytest.fixture(scope="module")
def graph(tmp_path_factory) -> OnnxArtifact:
    return write_tiny_graph(tmp_path_factory.mktemp("graph")).artifact


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def quantized(graph, cache):
    """Run the step with some settings; what was done is kept in `steps`."""

    def run(
        hardware: Hardware = VNNI,
        *,
        recipes=recipes_for,
        only_backed=False,
        kept_in=cache,
        **settings,
    ) -> Quantization:
        run.steps = Steps()
        work = Workspace(
            settings=Settings(threads=1, **settings), cache=Cache(kept_in), reporter=run.steps
        )
        spec = EncoderSpec(
            model_id="tiny",
            source="local",
            directory=cache,
            revision=None,
            library="transformers",
            architecture="BertModel",
            model_type="bert",
            pooling="mean",
            normalize=True,
            modules=(),
            embedding_dim=32,
            max_seq_length=64,
            weights_sha256="w",
            tokenizer_sha256="t",
        )
        return quantize_layers(
            work, spec, graph, TOKENS, recipes(hardware), hardware, only_backed=only_backed
        )

    return run


def by_name(found: Quantization) -> dict[str, Recipe]:
    return {recipe.name: recipe for recipe in found.recipes}


def overrides(recipe: Recipe) -> list[tuple[str, str]]:
    return [(one.pattern, one.precision) for one in recipe.overrides]


# -------------------------------------------------------------------------------- hold out


@pytest.mark.parametrize(("texts", "held_out"), [(50, 5), (59, 5), (300, 30), (309, 30)])
def test_every_tenth_text_is_held_out(texts: int, held_out: int) -> None:
    tokens = TokenSequences.from_lists([[number, 7] for number in range(texts)], PAD_ID)
    seen, apart = hold_out(tokens)
    first, other = ({int(row[0]) for row in part} for part in (seen, apart))
    assert len(other) == held_out == len(apart)
    assert not first & other
    assert first | other == set(range(texts))
    assert min(other) == HELD_OUT_EVERY - 1
    assert hold_out(tokens)[1].sha256 == apart.sha256


@pytest.mark.parametrize("texts", [1, 9, 10, 49])
def test_too_few_texts_serve_as_both(texts: int) -> None:
    tokens = TokenSequences.from_lists([[number, 7] for number in range(texts)], PAD_ID)
    assert hold_out(tokens) == (tokens, tokens)


# -------------------------------------------------------------------------- the whole step


def test_no_form_is_looked_for_that_a_tournament_would_not_build(quantized) -> None:
    found = quantized(AVX2, only_backed=True)
    assert (found.plans, found.summary) == ({}, None)
    assert quantized.steps.titles == []
    assert by_name(found)["int8-static"].requires, "it stays, to say why it is not built"
    assert quantized(VNNI, only_backed=True).plans
    assert quantized(AVX2, only_backed=True, precision="int8-static").plans
    assert quantized(AVX2).plans


def test_plans_and_recipes_are_made(quantized) -> None:
    found = quantized()
    names = list(by_name(found))
    mixed = [name for name in names if name.startswith("int8-static-")]
    assert mixed
    assert names[: 2 + len(mixed)] == ["float32", "int8-static", *mixed]
    superseded = {recipe.name for recipe in found.superseded}
    assert superseded == {"int8-mixed"}
    assert {*by_name(found), *superseded} >= {recipe.name for recipe in recipes_for(VNNI)}
    assert not superseded & set(by_name(found))
    assert len(set(names)) == len(names)
    static = by_name(found)["int8-static"]
    plans = load_prepared(found.plans_of(static)).plans
    assert [plan.layer.path for plan in plans] == list(LINEAR_PATHS)
    for name in names:
        path = found.plans_of(by_name(found)[name])
        assert (path == found.plans_of(static)) == name.startswith("int8-static"), name
    summary = found.summary
    assert (summary.num_texts, summary.num_held_out) == (54, 6)
    assert summary.reduced == ()
    assert [one.chosen for one in summary.scores].count(True) == 1
    assert next(one.method for one in summary.scores if one.chosen) == summary.method
    assert len(summary.scores) == 6, "smoothed, four calibrators, and compensated rounding"
    assert sum(len(one.layers) for one in summary.sensitivity) == len(LINEAR_PATHS)
    assert sum(one.work_share for one in summary.sensitivity) == pytest.approx(1)
    assert 0 < summary.drift < 1e-2


def test_the_same_is_found_in_the_cache(quantized) -> None:
    first = quantized()
    again = quantized()
    assert quantized.steps.titles == []
    assert again == first


def test_cpus_that_saturate_get_seven_bits_where_it_matters(quantized) -> None:
    found = quantized(AVX2)
    reduced = set(found.summary.reduced)
    assert reduced
    plans = load_prepared(found.plans_of(by_name(found)["int8-static"])).plans
    for plan in plans:
        largest = np.abs(plan.weight_integers.astype(int)).max()
        assert largest <= (63 if plan.layer.path in reduced else 127)
        assert plan.reduce_range == (plan.layer.path in reduced)


# ------------------------------------------------------------------------- what was asked


def test_calibrator_smoothing_and_embeddings_reach_the_recipe(quantized) -> None:
    found = quantized(calibrator="percentile", smoothing="off", embeddings="float16")
    static = by_name(found)["int8-static"]
    assert (static.scheme.calibrator, static.scheme.smoothing) == ("percentile", "off")
    assert static.embeddings == "float16"
    assert by_name(found)["int8-static-half"].scheme == static.scheme
    assert found.plans_of(static).is_file()
    assert {one.method.split(",")[0] for one in found.summary.scores} == {"percentile"}
    own = {recipe.name: recipe for recipe in recipes_for(VNNI)}
    assert by_name(found)["int8"] == own["int8"], "NNCF's recipes have no scheme to change"


def test_left_alone_the_recipe_decides(quantized) -> None:
    assert by_name(quantized())["int8-static"] == next(
        recipe for recipe in recipes_for(VNNI) if recipe.name == "int8-static"
    )


def test_what_does_not_go_together_is_refused(quantized) -> None:
    with pytest.raises(ConfigError, match="--smoothing on does not go with --calibrator mse"):
        quantized(calibrator="mse", smoothing="on", num_samples=7)
    assert quantized.steps.titles == []  # before anything is calibrated


def test_a_float_layer_reaches_every_int8_recipe_that_can_keep_it(quantized) -> None:
    found = quantized(layer_precision=["*.0.output.dense=float32"])
    recipes = by_name(found.with_superseded())
    for name in ("int8", "int8-static"):
        assert overrides(recipes[name])[-1] == ("*.0.output.dense", "float32"), name
    assert overrides(recipes["float32"]) == []
    assert "int8-weights" not in recipes
    assert "int8-dynamic" not in recipes


def test_an_int8_layer_drops_nncf_s_recipes(quantized) -> None:
    """NNCF is told what to leave out, not what to take in."""
    found = quantized(layer_precision=["ffn.down=int8"])
    kinds = {recipe.quantizer for recipe in found.with_superseded().recipes}
    assert kinds == {"none", "qdq"}
    mixed = [one for one in found.recipes if one.name.startswith("int8-static-")]
    for recipe in (*mixed, by_name(found)["int8-static"]):
        assert overrides(recipe)[-1] == ("ffn.down", "int8")
        assert not {pattern for pattern, _ in overrides(recipe)[:-1]} & set(FFN_DOWN_PATHS)


def test_a_pattern_that_matches_nothing_names_the_nearest(quantized) -> None:
    with pytest.raises(ConfigError) as caught:
        quantized(layer_precision=["encoder.layer.0.output.dens=float32"])
    assert caught.value.what.startswith("--layer-precision encoder.layer.0.output.dens=float32: ")
    assert "encoder.layer.0.output.dense" in f"{caught.value.why}{caught.value.hint}"
    assert quantized.steps.titles == [], "it is said before any work"


@pytest.mark.parametrize(
    ("hardware", "wrong", "has"),
    [(VNNI, "bfloat16", "int8, float32"), (AMX, "float16", "int8, bfloat16, float32")],
)
def test_a_precision_that_the_device_lacks_is_refused(quantized, hardware, wrong, has) -> None:
    with pytest.raises(ConfigError) as caught:
        quantized(hardware, layer_precision=[f"*.key={wrong}"])
    assert caught.value.what == (
        f"--layer-precision *.key={wrong}: this device has no {wrong} beside int8"
    )
    assert caught.value.why.endswith(has)
    assert quantized.steps.titles == []


# -------------------------------------------------------------------------------- no work


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8", "int8-mixed"])
def test_another_forced_precision_costs_nothing(quantized, precision: str) -> None:
    found = quantized(AMX, precision=precision)
    assert quantized.steps.titles == []
    assert found.plans == {}
    assert found.summary is None
    assert found.recipes == recipes_for(AMX)
    assert found.plans_of(by_name(found)["int8"]) is None


@pytest.mark.parametrize("precision", ["auto", "int8-static", "int8-static-half"])
def test_a_static_precision_is_prepared(quantized, precision: str) -> None:
    found = quantized(precision=precision)
    assert found.plans
    assert "int8-static-half" in by_name(found)


def test_without_static_recipes_there_is_nothing_to_do(quantized, graph, cache) -> None:
    steps = Steps()
    work = Workspace(settings=Settings(threads=1), cache=Cache(cache), reporter=steps)
    recipes = [one for one in recipes_for(VNNI) if one.quantizer != "qdq"]
    found = quantize_layers(work, None, graph, TOKENS, recipes, VNNI)
    assert found == Quantization(recipes=tuple(recipes), plans={})
    assert steps.titles == []


def test_nncf_forms_are_superseded_where_int8_attention_gains_nothing():
    by_nncf = {"quantizer": "nncf_ptq", "precision": "int8"}
    ends = LayerOverride(pattern="ffn.down", precision="float32")
    attention = LayerOverride(pattern="attention.matmul", precision="float32")
    plain = Recipe(name="m", float_precision="float32", why="", **by_nncf)
    mixed = replace(plain, overrides=(attention, ends))
    assert is_superseded(mixed)
    assert is_superseded(replace(mixed, overrides=(attention,)))
    assert is_superseded(replace(plain, float_precision="bfloat16"))
    assert not is_superseded(plain)
    assert not is_superseded(replace(mixed, quantizer="qdq"))
    taken_back = LayerOverride(pattern="ffn.down", precision="int8")
    assert not is_superseded(replace(plain, overrides=(taken_back,)))


def test_superseded_recipes_come_back(quantized) -> None:
    found = quantized()
    everything = found.with_superseded()
    assert set(everything.recipes) == {*found.recipes, *found.superseded}
    assert everything.superseded == ()
    assert everything.recipes[: len(found.recipes)] == found.recipes


def test_another_float_precision_is_taken_for_all_that_is_not_int8(quantized) -> None:
    found = quantized(AMX, layer_precision=["*.0.output.dense=float32"])
    recipes = by_name(found)
    for name in (one for one in recipes if one.startswith("int8-static")):
        assert recipes[name].float_precision == "float32"
        assert {precision for _, precision in overrides(recipes[name])} == {"float32"}
    assert "int8" not in recipes, "NNCF's recipes rest on bfloat16 there"
    untouched = by_name(quantized(AMX))["int8-static"]
    assert untouched.float_precision == "bfloat16"


def test_two_float_precisions_in_one_artifact_are_refused(quantized) -> None:
    with pytest.raises(ConfigError, match="bfloat16 and float32"):
        quantized(AMX, layer_precision=["*.key=float32", "*.query=bfloat16"])


# ----------------------------------------------------------------------- PyTorch's recipes


def test_one_line_each_for_tables_layers_and_outliers(quantized) -> None:
    """Half embedding tables beside int8 layers, one layer in float, another threshold."""
    found = by_name(
        quantized(
            AVX2,
            recipes=recipes_of_pytorch,
            embeddings="float16",
            layer_precision=(("ffn.down", "float32"),),
            outlier_threshold=3.0,
        )
    )
    quantizing = [one for one in found.values() if one.quantizer != "none"]
    assert len(quantizing) == 7
    for one in quantizing:
        assert one.embeddings == "float16"
        assert overrides(one) == [("ffn.down", "float32")]
    assert found["int8-outliers"].outlier_threshold == 3.0
    assert {one.outlier_threshold for one in quantizing} == {3.0, None}
    assert found["float32"].embeddings == "float32"


def test_eight_bits_go_to_recipes_that_can_split(quantized) -> None:
    found = by_name(
        quantized(AVX2, recipes=recipes_of_pytorch, layer_precision=(("ffn.down", "int8"),))
    )
    assert overrides(found["int4-weights"]) == [("ffn.down", "int8")]
    assert "nf4-weights" not in found, "bitsandbytes has one width for all"


def test_nothing_is_calibrated_for_pytorch(quantized) -> None:
    found = quantized(AVX2, recipes=recipes_of_pytorch)
    assert quantized.steps.titles == []
    assert found.plans == {}


def test_the_threshold_is_nobody_else_s(quantized) -> None:
    found = quantized(precision="float32", outlier_threshold=3.0)
    assert {one.outlier_threshold for one in found.recipes} == {None}


# ------------------------------------------------------------------------------- attention


def with_attention(asked: bool) -> tuple[Recipe, ...]:
    return tuple(
        one if one.scheme is None else replace(one, scheme=replace(one.scheme, attention=asked))
        for one in tensorrt_recipes(VNNI)
    )


def test_attention_is_planned_where_the_scheme_asks_for_it(quantized) -> None:
    found = quantized(recipes=lambda _: with_attention(True))
    (path,) = set(found.plans.values())
    plans = load_prepared(path)
    assert [one.block.path for one in plans.attention] == [
        f"encoder.layer.{number}.attention.self" for number in range(2)
    ]
    scores = found.summary.attention
    assert {one.method for one in scores} == {"minmax", "percentile", "entropy", "mse"}
    assert [one.drift for one in scores] == sorted(one.drift for one in scores)
    assert [one.chosen for one in scores] == [True, False, False, False]
    mixed = [one for one in found.recipes if one.name.startswith("int8-")]
    assert mixed
    assert all(one.scheme.attention for one in mixed)


def test_nobody_else_pays_for_it(quantized) -> None:
    found = quantized(recipes=lambda _: with_attention(False))
    (path,) = set(found.plans.values())
    assert load_prepared(path).attention == ()
    assert found.summary.attention == ()


def test_a_calibrator_that_was_asked_for_is_attention_s_too(quantized) -> None:
    found = quantized(recipes=lambda _: with_attention(True), calibrator="mse")
    assert [one.method for one in found.summary.attention] == ["mse"]


# ----------------------------------------------------------------------- the changed graph


def test_norms_are_centred_and_rounding_is_corrected(quantized, monkeypatch, tmp_path):
    def prepared(folder: Path) -> Prepared:
        found = quantized(calibrator="minmax", smoothing="on", kept_in=folder)
        return load_prepared(found.plans_of(by_name(found)["int8-static"]))

    whole = prepared(tmp_path / "whole")
    centred = {plan.layer.activation for plan in whole.plans} & set(whole.shifts)
    assert len(centred) == len(whole.shifts) > 0
    monkeypatch.setattr(int8_forms, "rounding_corrected", lambda plan, _: plan)
    bare = prepared(tmp_path / "bare")
    assert set(bare.shifts) == set(whole.shifts)
    for one, other in zip(whole.plans, bare.plans, strict=True):
        np.testing.assert_array_equal(one.weight_integers, other.weight_integers)
        assert np.abs(one.bias - other.bias).max() > 0


def test_nothing_is_changed_where_nothing_is_smoothed(quantized):
    found = quantized(calibrator="minmax", smoothing="off")
    prepared = load_prepared(found.plans_of(by_name(found)["int8-static"]))
    assert prepared.shifts == {} and prepared.copies == {}
