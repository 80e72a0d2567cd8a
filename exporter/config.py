"""Settings: a configuration file and flags become one frozen object.

Read from `exporter.toml`, or from `[tool.exporter]` in `pyproject.toml`; flags win.
An unknown key is an error that names the nearest key that exists.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from exporter.sizes import size_bytes
from exporter.values import Objective
from targets.contract import PRECISIONS, Calibrator, Precision, Switch
from targets.errors import ConfigError

EmbeddingsPrecision = Literal["float32", "float16", "int8"]
CudaApi = Literal["cuda-bindings", "pycuda"]
_LAYER_EXAMPLE = "encoder.layer.0.*=float32"
_FROZEN = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)


class Thresholds(BaseModel):
    """What an artifact must keep; see docs/fidelity.md for each measure.

    Cosines are between the artifact's and the FP32 model's embedding of the same text.
    `min_overlap_at_k` is the share of FP32's own k nearest neighbours that are kept;
    `min_recall` the share of FP32's recall@k on relevance labels (None: not gated).
    `max_size_bytes` may be written with a unit: "24MB".
    """

    model_config = _FROZEN

    min_mean_cosine: float = Field(0.99, ge=-1, le=1)
    min_p1_cosine: float = Field(0.97, ge=-1, le=1)
    min_overlap_at_k: float = Field(0.95, ge=0, le=1)
    k: int = Field(10, ge=1, le=100)
    min_stability: float = Field(0.999, ge=-1, le=1)
    min_speedup: float = Field(1.0, gt=0)
    min_recall: float | None = Field(None, ge=0, le=1)
    max_size_bytes: Annotated[int | None, BeforeValidator(size_bytes)] = Field(None, ge=1)


class PolicySettings(Thresholds):
    """The thresholds, and what follows where no int8 recipe keeps them.

    `on_failure` is "stop", or "qat": train, and judge what comes of it like any other recipe.
    """

    on_failure: Literal["stop", "qat"] = "stop"

    @property
    def thresholds(self) -> dict[str, Any]:
        """The thresholds alone."""
        return self.model_dump(include=set(Thresholds.model_fields))


def _layer_pairs(given: object) -> tuple[tuple[str, str], ...]:
    """Read patterns and precisions from a table, or from PATTERN=PRECISION one by one.

    Raises:
        ConfigError: one of them is malformed or names no precision.
    """
    if isinstance(given, Mapping):
        return tuple(_layer_pair(pattern, precision) for pattern, precision in given.items())
    if isinstance(given, Sequence) and not isinstance(given, str):
        pairs = [_split(one) if isinstance(one, str) else tuple(one) for one in given]
        if all(len(pair) == 2 for pair in pairs):
            return tuple(_layer_pair(*pair) for pair in pairs)
    raise ConfigError(
        f"layer_precision = {given!r} is not valid",
        why="it must be a table: a pattern of layers = a precision",
        hint='write [layer_precision] and below it: "encoder.layer.0.*" = "float32"',
    )


def _split(argument: str) -> tuple[str, str]:
    pattern, equals, precision = argument.rpartition("=")
    if not (equals and pattern.strip() and precision.strip()):
        raise ConfigError(
            f"--layer-precision {argument!r} is not valid",
            why="it must be PATTERN=PRECISION",
            hint=f"for example --layer-precision '{_LAYER_EXAMPLE}'",
        )
    return pattern.strip(), precision.strip()


def _layer_pair(pattern: object, precision: object) -> tuple[str, str]:
    if isinstance(precision, Mapping):  # what TOML makes of a pattern with dots in it
        raise ConfigError(
            f"layer_precision: {pattern} is a table, not a precision",
            why="TOML takes dots in a bare key for tables",
            hint='put the pattern in quotes: "encoder.layer.0.*" = "float32"',
        )
    if precision not in PRECISIONS:
        raise ConfigError(
            f"layer_precision: {pattern} = {precision!r} is no precision",
            why="known are " + ", ".join(PRECISIONS),
            hint=_nearest(str(precision), PRECISIONS) or f"for example {_LAYER_EXAMPLE}",
        )
    return str(pattern), str(precision)


def _device_names(given: object) -> object:
    """Take one name for a list of one."""
    return (given,) if isinstance(given, str) else given


DeviceNames = Annotated[tuple[str, ...], BeforeValidator(_device_names)]
"""Devices, each `DEVICE` or `TARGET=DEVICE`; one name stands for a list of one."""

LayerPrecisions = Annotated[tuple[tuple[str, Precision], ...], BeforeValidator(_layer_pairs)]
"""Layers by a pattern of their module paths, each with the precision that it must have."""


class Settings(BaseModel):
    """Everything that one `export` run was asked to do.

    `workload` is "queries", "documents", "mixed", or a file of texts; `search_budget_s` bounds
    each target's tournament (None: no limit); `embeddings` is the precision of embedding
    tables (None: what each recipe says); `outlier_threshold` that of LLM.int8 (None: likewise);
    `compute_capability` names the GPUs that are prepared for where none is here ("8.9"; none: each
    target's default); `qat` asks for quantization-aware training on the texts of `training` (None:
    the calibration texts' source); `training_labels` names the field of their classes.
    """

    model_config = _FROZEN

    model: str | None = None
    revision: str | None = None
    pooling: str | None = None
    max_seq_length: int | None = Field(None, ge=1)
    trust_remote_code: bool = False
    target: tuple[str, ...] = ()
    device: DeviceNames = ("local",)
    precision: str = "auto"
    layer_precision: LayerPrecisions = ()
    calibrator: Calibrator = "auto"
    smoothing: Switch = "auto"
    embeddings: EmbeddingsPrecision | None = None
    outlier_threshold: float | None = Field(None, ge=0, allow_inf_nan=False)
    attention_int8: bool = False
    objective: Objective = "balanced"
    workload: str = Field("mixed", min_length=1)
    search_budget_s: float | None = Field(None, gt=0, allow_inf_nan=False)
    compute_capability: DeviceNames = ()
    cuda_api: CudaApi | None = None
    threads: int | None = Field(None, ge=1)
    output: Path = Path("out")
    calibration: str | None = None
    num_samples: int = Field(300, ge=1)
    qat: bool = False
    training: str | None = None
    training_labels: str | None = None
    training_steps: int = Field(600, ge=1)
    learning_rate: float = Field(0.006, gt=0, allow_inf_nan=False)
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
    if "layer_precision" in merged:
        merged["layer_precision"] = _merged_layers(table, given)
    refuse_unknown(merged, Settings, source)
    refuse_unknown(policy, PolicySettings, f"{source} [policy]")
    return _validated(merged, source)


def _merged_layers(table: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, str]:
    """Let a flag win over the file's entry of the same pattern."""
    both = [source.get("layer_precision", {}) for source in (table, given)]
    return {pattern: precision for one in both for pattern, precision in _layer_pairs(one)}


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


def refuse_unknown(table: Mapping[str, Any], model: type[BaseModel], source: str) -> None:
    """Refuse a key that a table does not take. Raises: ConfigError, naming the nearest key."""
    known = list(model.model_fields)
    for key in table:
        if key not in known:
            raise ConfigError(
                f"{source}: unknown key {key!r}",
                why="known keys: " + ", ".join(sorted(known)),
                hint=_nearest(key, known) or "remove the key",
            )


def _nearest(name: str, known: Sequence[str]) -> str:
    """Suggest the known name that is most alike; "" where none is."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f"did you mean {close[0]!r}?" if close else ""


def _validated(merged: Mapping[str, Any], source: str) -> Settings:
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        choices = _choices(key) if first["type"] == "literal_error" else ()
        raise ConfigError(
            f"{source}: {key} = {first['input']!r} is not valid",
            why="it takes " + ", ".join(choices) if choices else first["msg"],
            hint=_nearest(str(first["input"]), choices)
            or "run `exporter export --help` for what each setting takes",
        ) from error


def _choices(key: str) -> tuple[str, ...]:
    """Return the words that a setting takes, where they are fixed."""
    field = Settings.model_fields.get(key)
    options = get_args(field.annotation) if field else ()
    nested = [get_args(option) or (option,) for option in options]  # of `Literal[...] | None`
    return tuple(one for words in nested for one in words if isinstance(one, str))
