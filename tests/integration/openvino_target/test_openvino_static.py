"""Our own Q/DQ graph in OpenVINO's files: which layers are int8, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from contract.tiny_graph import FFN_DOWN_PATHS, LINEAR_PATHS, TinyGraph, make_tokens
from contract.tiny_plans import write_plans

from targets.contract import CompileRequest, Hardware, LayerOverride, Recipe
from targets.errors import CalibrationError, CompileError
from targets.openvino.recipes import FFN_DOWN, recipes_for
from targets.openvino.sdk import import_openvino, is_installed
from targets.openvino.target import OpenVinoTarget
from targets.registry import open_device

pytestmark = pytest.mark.openvino
if not is_installed("openvino"):
    pytest.skip("pip install 'embedding-exporter[openvino]'", allow_module_level=True)

LOCAL = open_device("local").hardware()
FLOAT32 = replace(LOCAL, features=LOCAL.features - {"amx_bf16", "avx512_bf16", "asimdhp", "fphp"})
HALF = replace(LOCAL, features=LOCAL.features | {"amx_bf16"})


def static_recipe(hardware: Hardware = FLOAT32, *overrides: tuple[str, str]) -> Recipe:
    (recipe,) = (one for one in recipes_for(hardware) if one.name == "int8-static")
    return replace(
        recipe,
        overrides=tuple(LayerOverride(pattern=p, precision=to) for p, to in overrides),  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def plans(tiny: TinyGraph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    scheme = static_recipe().scheme
    assert scheme is not None
    path = tmp_path_factory.mktemp("plans") / "plans.npz"
    return write_plans(path, tiny.artifact, make_tokens(60), scheme)


def compiled(tiny: TinyGraph, folder: Path, recipe: Recipe, plans: Path | None) -> Path:
    request = CompileRequest(
        graph=tiny.artifact,
        recipe=recipe,
        calibration=make_tokens(),
        plans=plans,
        hardware=FLOAT32,
        output_dir=folder,
        num_threads=1,
        seed=0,
    )
    artifact = OpenVinoTarget().compile(request)
    return artifact.directory / artifact.files[0].path


def int8_layers(path: Path) -> set[str]:
    """Paths of the linear layers whose product really runs in integers."""
    openvino = import_openvino()
    compiled_model = openvino.Core().compile_model(
        path, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    )
    found = set()
    for node in compiled_model.get_runtime_model().get_ordered_ops():
        if str(node.get_rt_info()["layerType"].astype(str)) != "FullyConnected":
            continue
        kinds = {port.get_element_type().to_string() for port in node.inputs()[:2]}
        if kinds <= {"i8", "u8"}:
            names = str(node.get_rt_info()["originalLayersNames"].astype(str))
            found |= {one for one in LINEAR_PATHS if names.startswith(f"{one}/MatMul")}
    return found


def marks(path: Path) -> int:
    tree = ElementTree.parse(path)
    return len(tree.findall(".//rt_info/attribute[@name='DisablePrecisionConversion']"))


@pytest.mark.parametrize(
    ("overrides", "in_float"),
    [
        ((), set()),
        (((FFN_DOWN, "float32"),), set(FFN_DOWN_PATHS)),
        (((FFN_DOWN, "float32"), ("encoder.layer.0.*", "int8")), {FFN_DOWN_PATHS[1]}),
        ((("*.key", "float32"),), {one for one in LINEAR_PATHS if one.endswith(".key")}),
    ],
    ids=["all", "ffn.down", "taken back", "keys"],
)
def test_layers_are_int8_as_the_recipe_says(tiny, plans, tmp_path, overrides, in_float) -> None:
    path = compiled(tiny, tmp_path, static_recipe(FLOAT32, *overrides), plans)
    assert int8_layers(path) == set(LINEAR_PATHS) - in_float


def test_only_what_rests_on_float32_is_kept_there(tiny, plans, tmp_path) -> None:
    """Beside bfloat16, the loader's own choice is the right one."""
    for name, hardware in (("float32", FLOAT32), ("half", HALF)):
        (tmp_path / name).mkdir()
        path = compiled(tiny, tmp_path / name, static_recipe(hardware), plans)
        assert (marks(path) > 50) == (name == "float32")


def test_without_plans_nothing_is_built(tiny, tmp_path) -> None:
    with pytest.raises(CompileError, match="'int8-static' needs calibrated layers"):
        compiled(tiny, tmp_path, static_recipe(), None)


def test_damaged_plans_are_named(tiny, plans, tmp_path) -> None:
    broken = tmp_path / "plans.npz"
    broken.write_bytes(plans.read_bytes()[:5000])
    with pytest.raises(CalibrationError, match=r"plans\.npz does not hold plans"):
        compiled(tiny, tmp_path / "out", static_recipe(), broken)


def test_a_recipe_that_leaves_nothing_in_int8_is_refused(tiny, plans, tmp_path) -> None:
    with pytest.raises(CompileError, match="leaves no layer in int8"):
        compiled(tiny, tmp_path, static_recipe(FLOAT32, ("*", "float32")), plans)


def test_a_pattern_that_matches_nothing_is_refused(tiny, plans, tmp_path) -> None:
    with pytest.raises(CompileError) as caught:
        compiled(tiny, tmp_path, static_recipe(FLOAT32, ("*.kee", "float32")), plans)
    assert "int8-static" in caught.value.what
    assert "*.kee" in caught.value.what
