"""Settings: a configuration file and flags become one frozen object.

Read from `exporter.toml`, or from `[tool.exporter]` in `pyproject.toml`; flags win.
An unknown key is an error that names the nearest key that exists.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from targets.errors import ConfigError

_FROZEN = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)


class PolicySettings(BaseModel):
    """What an artifact must keep; see docs/fidelity.md for each measure.

    Cosines are between the artifact's and the FP32 model's embedding of the same text.
    `min_overlap_at_k` is the share of FP32's own k nearest neighbours that are kept;
    `min_recall` the share of FP32's recall@k on relevance labels (None: not gated).
    """

    model_config = _FROZEN

    min_mean_cosine: float = Field(0.99, ge=-1, le=1)
    min_p1_cosine: float = Field(0.97, ge=-1, le=1)
    min_overlap_at_k: float = Field(0.95, ge=0, le=1)
    k: int = Field(10, ge=1, le=100)
    min_stability: float = Field(0.999, ge=-1, le=1)
    min_speedup: float = Field(1.0, gt=0)
    min_recall: float | None = Field(None, ge=0, le=1)
    max_size_bytes: int | None = Field(None, ge=1)


class Settings(BaseModel):
    """Everything that one `export` run was asked to do."""

    model_config = _FROZEN

    model: str | None = None
    revision: str | None = None
    pooling: str | None = None
    max_seq_length: int | None = Field(None, ge=1)
    trust_remote_code: bool = False
    target: tuple[str, ...] = ()
    device: str = "local"
    precision: str = "auto"
    threads: int | None = Field(None, ge=1)
    output: Path = Path("out")
    calibration: str | None = None
    num_samples: int = Field(300, ge=1)
    eval: str | None = None
    field: str = "text"
    seed: int = 0
    cache: Path | None = None
    use_cache: bool = True
    policy: PolicySettings = PolicySettings()


def load_settings(config_file: Path | None, flags: Mapping[str, Any]) -> Settings:
    """Merge defaults, configuration file and flags (None: not given).

    Args:
        config_file: the file named by `--config`; None: `exporter.toml`, then
            `pyproject.toml` with a `[tool.exporter]` table, in the working directory.
        flags: field name → value as given on the command line; None entries are left out.

    Raises:
        ConfigError: unreadable file, unknown key, value of the wrong kind.
    """
    source, table = _read_table(config_file)
    given = {name: value for name, value in flags.items() if value not in (None, ())}
    policy = {**_policy_table(table, source), **given.pop("policy", {})}
    merged = {**table, **given, "policy": policy}
    _refuse_unknown(merged, Settings, source)
    _refuse_unknown(policy, PolicySettings, f"{source} [policy]")
    return _validated(merged, source)


def _policy_table(table: Mapping[str, Any], source: str) -> dict[str, Any]:
    policy = table.get("policy", {})
    if not isinstance(policy, dict):
        raise ConfigError(f"{source}: policy must be a table", hint="write [policy] and keys below")
    return policy


def _read_table(config_file: Path | None) -> tuple[str, dict[str, Any]]:
    if config_file is not None:
        return str(config_file), _tool_table(config_file)
    for name in ("exporter.toml", "pyproject.toml"):
        path = Path(name)
        if path.is_file() and (table := _tool_table(path)):
            return name, table
    return "the command line", {}


def _tool_table(path: Path) -> dict[str, Any]:
    document = _parse(path)
    if path.name == "pyproject.toml":
        document = document.get("tool", {}).get("exporter", {})
    if isinstance(document.get("target"), str):
        document = {**document, "target": [document["target"]]}
    return document


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"--config {path}: no such file", hint="check the path, or leave --config out"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read", why=str(error)) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML", why=str(error)) from error


def _refuse_unknown(table: Mapping[str, Any], model: type[BaseModel], source: str) -> None:
    known = list(model.model_fields)
    for key in table:
        if key not in known:
            nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
            raise ConfigError(
                f"{source}: unknown key {key!r}",
                why="known keys: " + ", ".join(sorted(known)),
                hint=f"did you mean {nearest[0]!r}?" if nearest else "remove the key",
            )


def _validated(merged: Mapping[str, Any], source: str) -> Settings:
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"{source}: {key} = {first['input']!r} is not valid",
            why=first["msg"],
            hint="run `exporter export --help` for what each setting takes",
        ) from error
