"""Settings from file and flags."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.config import PolicySettings, Settings, load_settings
from targets.errors import ConfigError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_defaults_without_a_file(here):
    settings = load_settings(None, {})
    assert settings == Settings()
    assert settings.policy == PolicySettings()


def test_flags_win_over_the_file_and_keep_its_other_keys(here):
    (here / "exporter.toml").write_text(
        'target = "openvino"\nseed = 3\nnum_samples = 50\n[policy]\nmin_overlap_at_k = 0.9\nk = 5\n'
    )
    settings = load_settings(None, {"seed": 7, "policy": {"min_overlap_at_k": 0.97}})
    assert (settings.seed, settings.num_samples, settings.target) == (7, 50, ("openvino",))
    assert (settings.policy.min_overlap_at_k, settings.policy.k) == (0.97, 5)


def test_flags_that_were_not_given_do_not_win(here):
    (here / "exporter.toml").write_text("seed = 3\n")
    assert load_settings(None, {"seed": None, "target": ()}).seed == 3


def test_pyproject_table_is_read(here):
    (here / "pyproject.toml").write_text('[tool.exporter]\nprecision = "bfloat16"\n')
    assert load_settings(None, {}).precision == "bfloat16"


def test_exporter_toml_goes_before_pyproject(here):
    (here / "pyproject.toml").write_text("[tool.exporter]\nseed = 1\n")
    (here / "exporter.toml").write_text("seed = 2\n")
    assert load_settings(None, {}).seed == 2


@pytest.mark.parametrize(
    ("text", "nearest"),
    [("num_sample = 3", "num_samples"), ("[policy]\nmin_overlap = 0.9", "min_overlap_at_k")],
)
def test_an_unknown_key_names_the_nearest(here, text, nearest):
    (here / "exporter.toml").write_text(text)
    with pytest.raises(ConfigError) as raised:
        load_settings(None, {})
    assert nearest in raised.value.hint
    assert "exporter.toml" in raised.value.what


@pytest.mark.parametrize(
    "text",
    ["seed = ", "num_samples = 0", 'num_samples = "many"', "policy = 3", "[policy]\nk = 0"],
)
def test_wrong_values_are_refused_by_name(here, text):
    file = here / "mine.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"mine\.toml"):
        load_settings(file, {})


def test_a_missing_config_file_is_refused(here):
    with pytest.raises(ConfigError, match="no such file"):
        load_settings(here / "nowhere.toml", {})


def test_a_config_file_that_is_not_text_is_refused(here):
    file = here / "mine.toml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(file, {})


def test_settings_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Settings().seed = 1  # type: ignore[misc]


# ------------------------------------------------------------------ search and recipes


def test_search_and_recipe_settings_have_defaults_that_decide_nothing():
    settings = Settings()
    assert (settings.objective, settings.workload) == ("balanced", "mixed")
    assert settings.search_budget_s is None
    assert settings.layer_precision == ()
    assert (settings.calibrator, settings.smoothing, settings.embeddings) == ("auto", "auto", None)


@pytest.mark.parametrize(
    ("flags", "nearest"),
    [
        ({"objective": "latncy"}, "latency"),
        ({"calibrator": "entropie"}, "entropy"),
        ({"smoothing": "of"}, "off"),
        ({"embeddings": "float"}, "float32"),
        ({"layer_precision": ("encoder.*=int",)}, "int8"),
    ],
)
def test_an_unknown_word_names_the_nearest(here, flags, nearest):
    with pytest.raises(ConfigError) as raised:
        load_settings(None, flags)
    assert nearest in raised.value.hint
    assert next(iter(flags)) in raised.value.what


def test_known_words_are_taken(here):
    flags = {"objective": "size", "calibrator": "mse", "smoothing": "on", "embeddings": "int8"}
    settings = load_settings(None, flags)
    assert {name: getattr(settings, name) for name in flags} == flags


def test_layers_come_from_flags_and_from_a_table(here):
    (here / "exporter.toml").write_text(
        '[layer_precision]\n"encoder.layer.0.*" = "float32"\n"*.output.dense" = "bfloat16"\n'
    )
    settings = load_settings(None, {"layer_precision": ("*.output.dense=int8", "pooler=float16")})
    assert settings.layer_precision == (
        ("encoder.layer.0.*", "float32"),
        ("*.output.dense", "int8"),
        ("pooler", "float16"),
    )


def test_a_pattern_may_hold_an_equals_sign(here):
    settings = load_settings(None, {"layer_precision": ("a=b.*=int8",)})
    assert settings.layer_precision == (("a=b.*", "int8"),)


@pytest.mark.parametrize("argument", ["encoder.layer.0", "=int8", "encoder.*=", ""])
def test_a_malformed_layer_flag_shows_an_example(here, argument):
    with pytest.raises(ConfigError) as raised:
        load_settings(None, {"layer_precision": (argument,)})
    assert "PATTERN=PRECISION" in raised.value.why
    assert "encoder.layer.0.*=float32" in raised.value.hint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[layer_precision]\nencoder.layer.0 = "float32"\n', "in quotes"),
        ('layer_precision = "encoder.*=int8"\n', "[layer_precision]"),
        ('[layer_precision]\n"encoder.*" = 8\n', "int8"),
        ('[layer_precision]\n"encoder.*" = "float64"\n', "float"),
    ],
)
def test_a_malformed_layer_table_says_how_to_write_it(here, text, said):
    (here / "exporter.toml").write_text(text)
    with pytest.raises(ConfigError) as raised:
        load_settings(None, {})
    assert said in str(raised.value)


@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan"), "soon"])
def test_a_search_budget_is_a_positive_number_of_seconds(here, value):
    with pytest.raises(ConfigError, match="search_budget_s"):
        load_settings(None, {"search_budget_s": value})
    assert load_settings(None, {"search_budget_s": 0.5}).search_budget_s == 0.5
