"""`--attention-int8`: refused before any work where it could change nothing."""

from __future__ import annotations

import pytest
from contract.tiny_graph import write_tiny_graph

from exporter.config import Settings, load_settings
from exporter.steps.attention import as_asked, require_targets
from targets.errors import ConfigError
from targets.registry import load_target

ASKED = Settings(attention_int8=True)


@pytest.mark.parametrize("name", ["openvino", "onnxruntime", "onnxruntime-mobile"])
def test_a_target_without_such_a_kernel_is_refused_by_name(name):
    with pytest.raises(ConfigError, match=f"{name} has no attention in int8"):
        require_targets(ASKED, [load_target("tensorrt"), load_target(name)])
    require_targets(Settings(), [load_target(name)])


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx"])
def test_tensorrt_takes_it_with_int8_and_with_nothing_else(name):
    target = load_target(name)
    require_targets(ASKED, [target])
    require_targets(Settings(attention_int8=True, precision="int8-most"), [target])
    with pytest.raises(ConfigError, match="does not go with --precision float16"):
        require_targets(Settings(attention_int8=True, precision="float16"), [target])


def test_recipes_stay_as_they_are_unless_asked_for(tmp_path):
    graph = write_tiny_graph(tmp_path).artifact
    target = load_target("tensorrt")
    recipes = target.candidates(graph, target.prepared_hardware(("8.9",)))
    assert as_asked(Settings(), target, recipes, graph) == tuple(recipes)
    with pytest.raises(ConfigError, match="heads of 16, 32, 64 values") as caught:
        as_asked(ASKED, target, recipes, graph)
    assert "has 4 × 8" in caught.value.why


def test_the_file_and_the_flag_say_the_same(tmp_path):
    path = tmp_path / "exporter.toml"
    path.write_text("attention_int8 = true\n")
    assert load_settings(path, {}).attention_int8
    assert not load_settings(None, {"attention_int8": None}).attention_int8
