"""How an engine is built: one source of builder calls, trtexec line and manifest."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from targets.contract import TokenSequences
from targets.errors import CompileError, ConfigError

VERSION = 1
_MULTIPLE = 32
_LARGEST_BATCH = 64
_TYPICAL_BATCH = 8
_SHORT_SHARE = 0.9
"""Share of the texts that the profile of short ones takes."""
Shape = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Shapes [batch, sequence] that one set of kernels serves; tuned for `typical`."""

    smallest: Shape
    typical: Shape
    largest: Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildPlan:
    """Everything that decides what engine comes out of a graph.

    Args:
        graph: name of the ONNX file, beside the plan.
        inputs: the graph's inputs, all [batch, sequence].
        profiles: at least one; the runtime takes the first that a batch fits into.
        optimization_level: 0 to 5; TensorRT's own default is 3.
        timing_iterations: runs of every kernel that is tried; the API's default is 1, trtexec's 8.
        workspace_bytes: scratch memory at most.
        hardware_compatible: an engine that other GPUs of Ampere and later run too.
        version_compatible: an engine that later versions of the same major run too.
        compute_capabilities: GPUs to build for without one at hand (TensorRT for RTX): "8.9".
        timing_cache: file of trtexec's that keeps timings of kernels; "": none. Built by the
            program itself, they are kept in its cache, one file per version and GPU.
        calibrator: "cache": TensorRT 10 takes the scales of the calibration cache into a graph
            without Q/DQ, and chooses what becomes int8; "tensorrt": it chooses the scales too, from
            texts; "none": the graph says it.
        calibration_sha256: of the token ids that it chose from; "": of none.
        cuda_api: package that the session speaks to CUDA with: "cuda-bindings" or "pycuda".
        cuda_graph: the session replays a captured graph for each shape.
    """

    graph: str
    inputs: tuple[str, ...]
    profiles: tuple[Profile, ...]
    optimization_level: int = 3
    timing_iterations: int = 8
    workspace_bytes: int = 1 << 32
    hardware_compatible: bool = False
    version_compatible: bool = False
    compute_capabilities: tuple[str, ...] = ()
    timing_cache: str = ""
    calibrator: str = "none"
    calibration_sha256: str = ""
    cuda_api: str = "cuda-bindings"
    cuda_graph: bool = False

    def to_json(self) -> str:
        """Return the plan as JSON."""
        return json.dumps({"version": VERSION, **asdict(self)}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> BuildPlan:
        """Read what `to_json` wrote.

        Raises:
            CompileError: it is no plan, or of another version.
        """
        try:
            return cls._read(json.loads(text))
        except (ValueError, KeyError, TypeError) as error:
            raise CompileError(
                "the build plan cannot be read", why=str(error), hint="prepare the bundle again"
            ) from error

    @classmethod
    def _read(cls, values: dict[str, Any]) -> BuildPlan:
        version = values.pop("version")
        if version != VERSION:
            raise ValueError(f"version {version}, this program reads {VERSION}")
        profiles = tuple(
            Profile(**{name: (int(a), int(b)) for name, (a, b) in one.items()})
            for one in values.pop("profiles")
        )
        inputs, capabilities = values.pop("inputs"), values.pop("compute_capabilities")
        return cls(
            profiles=profiles,
            inputs=tuple(inputs),
            compute_capabilities=tuple(capabilities),
            **values,
        )


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise ValueError
        return value

    return read


def _one_of(*allowed: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in allowed:
            raise ValueError
        return text

    return read


def _switch(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


_MIB = 1 << 20
_OPTIONS: Mapping[str, tuple[str, Callable[[str], object], str]] = {
    "optimization_level": ("optimization_level", _whole(0, 5), "0 to 5"),
    "timing_iterations": ("timing_iterations", _whole(1, 1000), "1 to 1000"),
    "workspace_mib": (
        "workspace_bytes",
        lambda text: _whole(1, 1 << 20)(text) * _MIB,
        "a whole number of MiB",
    ),
    "hardware_compatible": ("hardware_compatible", _switch, "true or false"),
    "calibrator": ("calibrator", _one_of("none", "cache", "tensorrt"), "none, cache or tensorrt"),
    "cuda_api": ("cuda_api", _one_of("cuda-bindings", "pycuda"), "cuda-bindings or pycuda"),
    "cuda_graph": ("cuda_graph", _switch, "true or false"),
    "version_compatible": ("version_compatible", _switch, "true or false"),
}
"""Name of an option → field of the plan, how it is read, what it may be."""
SESSION_OPTIONS = frozenset({"cuda_api", "cuda_graph"})
"""Options of how an engine is run; those of an engine that is built already, too."""


def with_options(plan: BuildPlan, options: Mapping[str, str]) -> BuildPlan:
    """Return a plan with what the user wants otherwise.

    Raises:
        ConfigError: no such option, or no such value.
    """
    changes: dict[str, Any] = {}
    for name, text in options.items():
        if name not in _OPTIONS:
            raise ConfigError(
                f"build option {name!r} is not known",
                why=f"TensorRT has {', '.join(_OPTIONS)}",
                hint="docs/tensorrt.md says what each does",
            )
        field, read, allowed = _OPTIONS[name]
        try:
            changes[field] = read(text)
        except (ValueError, KeyError) as error:
            raise ConfigError(f"build option {name}={text}: it must be {allowed}") from error
    return replace(plan, **changes)


def profiles_for(tokens: TokenSequences, max_seq_length: int) -> tuple[Profile, ...]:
    """Return profiles for short texts and for all, from the lengths that texts really have.

    Args:
        tokens: representative texts.
        max_seq_length: the model's limit.
    """
    lengths = tokens.lengths
    if not len(lengths):
        raise CompileError("no texts to take lengths from", hint="give calibration texts")
    limit = max(1, max_seq_length)
    short = min(limit, _up(float(np.quantile(lengths, _SHORT_SHARE))))
    middle = min(short, max(1, round(float(np.median(lengths)))))
    whole = Profile(
        smallest=(1, 1),
        typical=(_TYPICAL_BATCH, max(1, (short + limit) // 2)),
        largest=(_LARGEST_BATCH, limit),
    )
    if short == limit:
        return (whole,)
    first = Profile(
        smallest=(1, 1), typical=(_TYPICAL_BATCH, middle), largest=(_LARGEST_BATCH, short)
    )
    return (first, whole)


def _up(length: float) -> int:
    return max(_MULTIPLE, int(np.ceil(length / _MULTIPLE)) * _MULTIPLE)


def trtexec_line(plan: BuildPlan, engine: str, *, major: int) -> str:
    """Return the trtexec command that builds the same engine.

    Args:
        plan: what is built.
        engine: file to write.
        major: version of TensorRT; 10 must be told that types are those of the graph, 11 knows
            nothing else.
    """
    words = ["trtexec", f"--onnx={plan.graph}", f"--saveEngine={engine}"]
    words += ["--stronglyTyped"] if major < 11 else []
    for number, profile in enumerate(plan.profiles):
        words += [f"--profile={number}"] if len(plan.profiles) > 1 else []
        sizes = (profile.smallest, profile.typical, profile.largest)
        for flag, shape in zip(("min", "opt", "max"), sizes, strict=True):
            words.append(f"--{flag}Shapes={_shapes(plan.inputs, shape)}")
    words += [
        f"--builderOptimizationLevel={plan.optimization_level}",
        f"--avgTiming={plan.timing_iterations}",
        f"--memPoolSize=workspace:{plan.workspace_bytes // _MIB}M",
        "--profilingVerbosity=detailed",
    ]
    words += [f"--timingCacheFile={plan.timing_cache}"] if plan.timing_cache else []
    words += ["--hardwareCompatibilityLevel=ampere+"] if plan.hardware_compatible else []
    words += ["--versionCompatible"] if plan.version_compatible else []
    return shlex.join(words)


def _shapes(inputs: Sequence[str], shape: Shape) -> str:
    return ",".join(f"{name}:{shape[0]}x{shape[1]}" for name in inputs)
