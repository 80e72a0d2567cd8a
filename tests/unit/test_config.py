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
