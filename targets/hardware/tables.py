"""The tables of CPUs and GPUs as rows of text, for the command line and for `docs/hardware.md`.

`python -m targets.hardware.tables FILE` writes them anew between the markers of a Markdown file.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from targets.contract import Hardware
from targets.errors import UsageError
from targets.hardware.cpu import SOURCES, CpuProfile
from targets.hardware.gpus import GPU_SOURCES, GpuProfile, gpu_profiles
from targets.hardware.precisions import (
    BACKINGS,
    ONNX_RUNTIME,
    OPENVINO,
    UNUSED,
    accelerated_precisions,
)
from targets.hardware.profiles import cpu_profiles
from targets.hardware.schemes import safe_int8_schemes

Row = tuple[str, ...]
CPU_HEADINGS: Row = ("CPU", "also", OPENVINO, ONNX_RUNTIME, "exact int8")
CPU_DETAIL_HEADINGS: Row = ("CPU", "numbers", "telling features", "QEMU", "sources", "note")
GPU_HEADINGS: Row = (
    *("capability", "generation", "GPUs", "tensor cores", "TensorRT", "TensorRT-RTX", "sources"),
    "note",
)
_VECTORS = frozenset({"avx2", "avx512f", "sve", "sve2", "sme", "sme2"})
"""They back no precision and still tell CPUs apart."""


def cpu_row(profile: CpuProfile) -> Row:
    """Return what a CPU is good for: name, aliases, precisions by runtime, exact int8 schemes."""
    hardware = _one_core(profile)
    return (
        profile.name,
        ", ".join(profile.aliases),
        _precisions(hardware, OPENVINO),
        _precisions(hardware, ONNX_RUNTIME),
        ", ".join(sorted(safe_int8_schemes(hardware, ONNX_RUNTIME))),
    )


def cpu_detail_row(profile: CpuProfile) -> Row:
    """Return where that comes from: name, numbers, features, QEMU's model, sources, note."""
    return (
        profile.name,
        ", ".join(profile.numbers),
        ", ".join(telling_features(profile)),
        profile.qemu_model or "",
        ", ".join(profile.sources),
        profile.note,
    )


def gpu_row(profile: GpuProfile) -> Row:
    """Return everything that the table knows of a GPU."""
    return (
        profile.sm,
        profile.generation,
        ", ".join(profile.names),
        ", ".join(profile.tensor_formats),
        ", ".join(map(str, profile.tensorrt)),
        "yes" if profile.tensorrt_rtx else "",
        ", ".join(profile.sources),
        profile.note,
    )


def telling_features(profile: CpuProfile) -> tuple[str, ...]:
    """Return the features that back a precision or name a vector extension, sorted."""
    telling = _VECTORS.union(one.feature for backings in BACKINGS.values() for one in backings)
    return tuple(sorted(telling & profile.features))


def markdown_tables() -> Mapping[str, str]:
    """Return marker → table, for every generated part of the page."""
    return {
        "cpus": _markdown(CPU_HEADINGS, [cpu_row(one) for one in cpu_profiles()]),
        "cpu-details": _markdown(
            CPU_DETAIL_HEADINGS, [cpu_detail_row(one) for one in cpu_profiles()]
        ),
        "gpus": _markdown(GPU_HEADINGS, [gpu_row(one) for one in gpu_profiles()]),
        "backings": _markdown(("precision", "feature", "instruction"), _backing_rows()),
        "unused": _markdown(("precision", "feature", "runtime", "why"), _unused_rows()),
        "sources": _markdown(("source", "what"), [*SOURCES.items(), *GPU_SOURCES.items()]),
    }


def rewrite(text: str) -> str:
    """Put the tables between `<!-- NAME -->` and `<!-- /NAME -->` of a Markdown page.

    Raises:
        UsageError: a marker is missing.
    """
    for name, table in markdown_tables().items():
        first, last = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, opened, rest = text.partition(first)
        _, closed, after = rest.partition(last)
        if not (opened and closed):
            raise UsageError(f"the page has no part between {first.strip()} and {last}")
        text = f"{before}{first}\n{table}\n{last}{after}"
    return text


def _backing_rows() -> list[Row]:
    return [
        (precision, f"`{one.feature}`", one.instruction)
        for precision, backings in BACKINGS.items()
        for one in backings
    ]


def _unused_rows() -> list[Row]:
    return [
        (
            one.precision,
            ", ".join(f"`{name}`" for name in sorted(one.features)),
            one.runtime or "all",
            one.why,
        )
        for one in UNUSED
    ]


def _markdown(headings: Sequence[str], rows: Sequence[Row]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _precisions(hardware: Hardware, runtime: str) -> str:
    return ", ".join(accelerated_precisions(hardware, runtime))


def _one_core(profile: CpuProfile) -> Hardware:
    return profile.hardware(num_cores=1, memory_bytes=1)


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(rewrite(page.read_text("utf-8")), "utf-8")
