"""`ci/devices.toml`: the devices of a fleet, and what each of them is built with."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from targets.errors import ConfigError

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_FROZEN = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)


def _plain_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse what a shell or a path would take for more than a name."""
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not made of letters, digits, '.', '_' and '-'")
    return names


Names = Annotated[tuple[str, ...], AfterValidator(_plain_names)]
Labels = Annotated[tuple[str, ...], Field(min_length=1)]


class FleetDevice(BaseModel):
    """One device of the fleet.

    Args:
        targets: what is built for it.
        device: where that runs, as `--device` takes it.
        runner: labels of the CI machine that builds (GitHub: runs-on, GitLab: tags).
        finish_runner: labels of the machine that has the device, where the first one can only
            prepare (TensorRT); empty: nothing is left to finish.
        extras: what is installed on both.
        policy: configuration file of this device, beside the fleet's file; `[policy]` and any
            other setting.
        arguments: further arguments of `exporter export`.
    """

    model_config = _FROZEN

    targets: Annotated[Names, Field(min_length=1)]
    device: str = Field("local", min_length=1)
    runner: Labels
    finish_runner: tuple[str, ...] = ()
    extras: Names = ()
    policy: Path | None = None
    arguments: tuple[str, ...] = ()


class Fleet(BaseModel):
    """All devices, and what they have in common: reports of other models are not merged.

    Args:
        model, revision, calibration, eval: as `exporter export` takes them.
        arguments: further arguments of every `exporter export`.
        gate: policy file of `exporter gate`, beside the fleet's file.
        device: the devices by name.
    """

    model_config = _FROZEN

    model: str | None = None
    revision: str | None = None
    calibration: str | None = None
    eval: str | None = None
    arguments: tuple[str, ...] = ()
    gate: Path | None = None
    device: Annotated[Mapping[str, FleetDevice], Field(min_length=1)]


def load_fleet(path: Path) -> Fleet:
    """Read a fleet's file.

    Raises:
        ConfigError: it is missing or no TOML; a key is unknown, missing or of the wrong kind; a
            name has characters that a path must not have; a file that it names is not there; two
        devices have the same target on the same device.
    """
    try:
        fleet = Fleet.model_validate(_read(path))
        _plain_names(tuple(fleet.device))
    except ValidationError as error:
        raise _refusal(path, error) from error
    except ValueError as error:
        raise ConfigError(f"{path}: a device's name {error}", hint="rename it") from error
    _require_distinct(path, fleet)
    files = {"gate": fleet.gate} | {f"device.{n}.policy": d.policy for n, d in fleet.device.items()}
    found = {key: _beside(path, key, file) for key, file in files.items()}
    devices = {
        name: device.model_copy(update={"policy": found[f"device.{name}.policy"]})
        for name, device in fleet.device.items()
    }
    return fleet.model_copy(update={"gate": found["gate"], "device": devices})


def device_named(fleet: Fleet, name: str) -> FleetDevice:
    """Return a device of the fleet.

    Raises:
        ConfigError: there is none of that name; names the nearest.
    """
    if name not in fleet.device:
        raise ConfigError(
            f"the fleet has no device {name!r}",
            why="it has " + ", ".join(fleet.device),
            hint=_nearest(name, tuple(fleet.device)),
        )
    return fleet.device[name]


def _require_distinct(path: Path, fleet: Fleet) -> None:
    """Refuse at once what the rollout could not tell apart after hours of building.

    Raises:
        ConfigError: names the two devices.
    """
    seen: dict[tuple[str, str], str] = {}
    for name, device in fleet.device.items():
        for target in device.targets:
            other = seen.setdefault((target, device.device), name)
            if other != name:
                raise ConfigError(
                    f"{path}: {other} and {name} both have {target} on {device.device}",
                    why="reports tell artifacts apart by target and device",
                    hint="name one of them as it is reached, for example ssh://HOST",
                )


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such file",
            why="it says which devices the fleet has",
            hint="run from the project's folder, or name the file with --devices",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read", why=str(error)) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML", why=str(error)) from error


def _beside(path: Path, key: str, file: Path | None) -> Path | None:
    if file is None:
        return None
    if not (path.parent / file).is_file():
        raise ConfigError(
            f"{path}: {key} names {file}, which is not there",
            why=f"files are looked for beside {path.name}",
            hint="correct the name, or leave the key out",
        )
    return path.parent / file


def _refusal(path: Path, error: ValidationError) -> ConfigError:
    # A misspelt key is also a missing one: what was written tells more than what was not.
    found = sorted(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    first = found[0]
    where = tuple(str(part) for part in first["loc"] if isinstance(part, str))
    if first["type"] != "extra_forbidden":
        given = "" if first["type"] == "missing" else f" ({first['input']!r} was given)"
        return ConfigError(
            f"{path}: {'.'.join(where)} is not valid",
            why=first["msg"] + given,
            hint="docs/ci.md says what each key takes",
        )
    known = tuple((FleetDevice if len(where) > 1 else Fleet).model_fields)
    return ConfigError(
        f"{path}: unknown key {'.'.join(where)!r}",
        why="known keys: " + ", ".join(known),
        hint=_nearest(where[-1], known) or "remove the key",
    )


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f"did you mean {close[0]!r}?" if close else ""
