"""Plans of layers in a file, so that processes that compile recipes need not make them again."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from targets.errors import CalibrationError
from targets.quantization.attention import AttentionBlock, AttentionPlan
from targets.quantization.calibrators import Range
from targets.quantization.centring import shift_norms
from targets.quantization.layers import EncoderLayers, LinearLayer, read_layers
from targets.quantization.plan import LayerPlan
from targets.quantization.splitting import split_channels

VERSION = 3
_COPIES, _SHIFTS, _VALUES = "copies.", "shifts.", "values."
_NO_PLANS = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    zipfile.BadZipFile,
    CalibrationError,
)
"""What reading arrays, JSON and fields of another file may raise."""
_OPERANDS = ("query", "key", "value")
_ARRAYS = ("divisor", "weight", "weight_scale", "weight_integers", "bias")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Int8 forms of a graph's layers, and how the graph is changed before they fit it.

    Args:
        plans: one for each linear layer of the changed graph.
        copies: see `splitting.split_channels`.
        shifts: see `centring.shift_norms`. Both empty: the graph stays as it is.
        attention: one for each attention where the scheme asks for them.
    """

    plans: tuple[LayerPlan, ...]
    copies: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    shifts: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    attention: tuple[AttentionPlan, ...] = ()


def load_changed(graph: Path, prepared: Prepared) -> tuple[onnx.ModelProto, EncoderLayers]:
    """Load a float graph as the plans need it, with its layers; it computes the same."""
    model = onnx.load(graph)
    layers = read_layers(model)
    wide = split_channels(model, layers, prepared.copies)
    return shift_norms(wide, layers, prepared.shifts), layers


def save_prepared(prepared: Prepared, path: Path) -> None:
    """Write plans as an uncompressed `.npz` without pickles.

    Args:
        prepared: plans, any number.
        path: a new file; its folder exists.
    """
    arrays: dict[str, NDArray[Any]] = {
        f"{_COPIES}{path}": copies for path, copies in prepared.copies.items()
    }
    arrays |= {f"{_SHIFTS}{name}": shift for name, shift in prepared.shifts.items()}
    described = []
    for number, plan in enumerate(prepared.plans):
        described.append(
            {
                "layer": asdict(plan.layer),
                "activation": asdict(plan.activation),
                "integers": plan.integers,
                "symmetric": plan.symmetric,
                "reduce_range": plan.reduce_range,
            }
        )
        for name in _ARRAYS:
            value = getattr(plan, name)
            if value is not None:
                arrays[f"{number}.{name}"] = value
    for number, block in enumerate(prepared.attention):
        arrays[f"{_VALUES}{number}"] = block.value_absmax
    attention = [_described(one) for one in prepared.attention]
    text = json.dumps({"version": VERSION, "plans": described, "attention": attention})
    np.savez(path, allow_pickle=False, about=np.frombuffer(text.encode(), np.uint8), **arrays)


def load_prepared(path: Path) -> Prepared:
    """Read what `save_prepared` wrote.

    Raises:
        CalibrationError: the file is missing, damaged or of another version.
    """
    try:
        # numpy leaves a file open that it opened itself and cannot read
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            about = json.loads(stored["about"].tobytes())
            if about["version"] != VERSION:
                raise ValueError(f"version {about['version']}, this program reads {VERSION}")
            arrays = {name: stored[name] for name in stored.files}
            return Prepared(
                plans=tuple(
                    _plan(one, number, arrays) for number, one in enumerate(about["plans"])
                ),
                copies=_named(_COPIES, arrays),
                shifts=_named(_SHIFTS, arrays),
                attention=tuple(
                    _attention(one, arrays[f"{_VALUES}{number}"])
                    for number, one in enumerate(about["attention"])
                ),
            )
    except _NO_PLANS as error:
        raise CalibrationError(
            f"{path} does not hold plans of layers", why=str(error), hint="prepare them again"
        ) from error


def _named(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {
        name.removeprefix(prefix): values
        for name, values in arrays.items()
        if name.startswith(prefix)
    }


def _described(plan: AttentionPlan) -> dict[str, Any]:
    return {
        "block": asdict(plan.block),
        **{name: asdict(getattr(plan, name)) for name in _OPERANDS},
    }


def _attention(about: dict[str, Any], value_absmax: NDArray[np.float32]) -> AttentionPlan:
    return AttentionPlan(
        block=AttentionBlock(**about["block"]),
        value_absmax=value_absmax,
        **{name: Range(**about[name]) for name in _OPERANDS},
    )


def _plan(about: dict[str, Any], number: int, arrays: dict[str, NDArray[Any]]) -> LayerPlan:
    return LayerPlan(
        layer=LinearLayer(**about["layer"]),
        activation=Range(**about["activation"]),
        integers=about["integers"],
        symmetric=about["symmetric"],
        reduce_range=about["reduce_range"],
        **{name: arrays.get(f"{number}.{name}") for name in _ARRAYS},
    )
