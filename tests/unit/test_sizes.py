"""Sizes in words, and the size budget that they set."""

from __future__ import annotations

import pytest

from exporter.cli.app import run
from exporter.config import Settings, load_settings
from exporter.sizes import size_bytes
from targets.errors import ConfigError, ExitCode, StepError


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("24MB", 24_000_000),
        ("24 MiB", 25_165_824),
        ("23.5mb", 23_500_000),
        ("1gib", 2**30),
        ("512kB", 512_000),
        ("2KiB", 2048),
        ("24000000", 24_000_000),
        (" 7 B ", 7),
    ],
)
def test_sizes_in_words(given, expected):
    assert size_bytes(given) == expected


@pytest.mark.parametrize(
    "given", ["24M", "24MBs", "MB", "", "-1MB", "0", "0.1B", "1e6", "1,5MB", "9" * 400, "١٢"]
)
def test_what_is_no_size_is_refused_with_an_example(given):
    with pytest.raises(ConfigError) as raised:
        size_bytes(given)
    assert repr(given) in raised.value.what
    assert "--max-size 24MB" in raised.value.hint


@pytest.mark.parametrize("written", ['"24MB"', "24000000"])
def test_the_budget_is_read_from_a_file(tmp_path, written):
    file = tmp_path / "mine.toml"
    file.write_text(f"[policy]\nmax_size_bytes = {written}\n")
    assert load_settings(file, {}).policy.max_size_bytes == 24_000_000


def test_the_flag_wins_over_the_file(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('[policy]\nmax_size_bytes = "1GB"\n')
    settings = load_settings(file, {"policy": {"max_size_bytes": "24MiB"}})
    assert settings.policy.max_size_bytes == 25_165_824


@pytest.mark.parametrize("written", ["0", "-3", "2.5", "[]"])
def test_numbers_that_are_no_sizes_are_refused(tmp_path, written):
    file = tmp_path / "mine.toml"
    file.write_text(f"[policy]\nmax_size_bytes = {written}\n")
    with pytest.raises(ConfigError, match="max_size_bytes"):
        load_settings(file, {})


def test_no_budget_unless_one_is_set(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("")
    assert load_settings(file, {}).policy.max_size_bytes is None


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """Settings that the export is started with; it goes no further."""
    seen: list[Settings] = []

    def stop(settings: Settings, *_: object, **__: object) -> None:
        seen.append(settings)
        raise StepError("far enough")

    monkeypatch.setattr("exporter.pipeline.run_export", stop)
    return seen


def test_the_flag_sets_the_budget(asked):
    arguments = ["export", "--target", "openvino", "--max-size", "24MB", "-q"]
    assert run(arguments) == ExitCode.STEP_FAILED
    assert [settings.policy.max_size_bytes for settings in asked] == [24_000_000]


def test_a_wrong_size_is_refused_by_name_before_any_work(asked, capsys):
    assert run(["export", "--target", "openvino", "--max-size", "24M"]) == ExitCode.USAGE
    message = capsys.readouterr().err
    assert "--max-size" in message
    assert "'24M'" in message
    assert asked == []
