"""What `exporter targets` prints; it knows targets by the contract only."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from targets.contract import (
    Availability,
    Device,
    Hardware,
    Preparable,
    Target,
    TargetSpec,
    hardware_of,
)
from targets.hardware.explain import explain_precision, explain_recipe
from targets.hardware.gpu_hardware import ARCHITECTURE as GPU
from targets.hardware.gpus import GpuProfile, gpu_profiles
from targets.hardware.precisions import accelerated_precisions
from targets.hardware.profiles import CpuProfile, cpu_profiles
from targets.hardware.schemes import int8_schemes
from targets.hardware.tables import CPU_HEADINGS, cpu_row
from targets.registry import TargetRow

NOMINAL_CORES = 4
NOMINAL_MEMORY_BYTES = 4 << 30
"""A CPU that is only named has no cores and no memory to count; recipes do not depend on them."""


def print_targets(rows: Sequence[TargetRow], hardware: Hardware | None) -> None:
    """Print one line per target: what it is, whether it works here, what is accelerated here.

    Args:
        rows: the targets.
        hardware: of the device that was looked at; None where it does not say what it is.
    """
    table = Table("target", "runtime", "precisions", "accelerated here", "here")
    for row in rows:
        faster = "-" if hardware is None else _accelerated(row, hardware)
        _add(table, row.name, row.runtime, ", ".join(row.precisions), faster, row.state)
    Console().print(table)


def print_target(target: Target, device: Device) -> None:
    """Print a target's precisions and recipes on a device, each with what backs it."""
    found = target.probe(device)
    if isinstance(target, Preparable) and not found.ok:
        hardware = target.prepared_hardware(())
    else:
        hardware = hardware_of(target, device)
    _print_title(target.spec)
    _line(f"device {device.name}: {hardware.model_name} ({hardware.microarchitecture})")
    _print_state(found)
    _print_abilities(target, hardware)


def print_target_for(target: Target, profile: CpuProfile) -> None:
    """Print a target's precisions and recipes on a CPU that is only named."""
    _print_title(target.spec)
    print_cpu(profile)
    _line("from the table: a device's own flags win where one is at hand")
    _print_abilities(target, nominal_hardware(profile))


def print_targets_for(rows: Sequence[TargetRow], profile: CpuProfile) -> None:
    """Print one line per target: what an instruction of that CPU makes faster than float32."""
    hardware = nominal_hardware(profile)
    print_cpu(profile)
    table = Table("target", "runtime", "precisions", f"accelerated on {profile.name}")
    for row in rows:
        _add(table, row.name, row.runtime, ", ".join(row.precisions), _accelerated(row, hardware))
    Console().print(table)


def print_cpu(profile: CpuProfile) -> None:
    """Print a row of the table of CPUs."""
    _line(f"{profile.name}: {profile.vendor}, {profile.architecture}, {_numbers(profile)}")
    if profile.aliases:
        _line(f"also: {', '.join(profile.aliases)}")
    _line(f"features: {' '.join(sorted(profile.features))}")
    if profile.note:
        _line(f"note: {profile.note}")
    _line(f"sources: {', '.join(profile.sources)} (docs/hardware.md)")


def print_gpu(profile: GpuProfile) -> None:
    """Print a row of the table of GPUs."""
    supported = [f"TensorRT {major}" for major in profile.tensorrt]
    supported += ["TensorRT-RTX"] if profile.tensorrt_rtx else []
    _line(f"{profile.sm}: NVIDIA {profile.generation}, {', '.join(profile.names)}")
    _line(f"tensor cores: {', '.join(profile.tensor_formats)}")
    _line(f"compiled for by: {', '.join(supported)}")
    if profile.note:
        _line(f"note: {profile.note}")
    _line(f"sources: {', '.join(profile.sources)} (docs/hardware.md)")


def print_hardware_names() -> None:
    """Print every CPU and GPU that has a name here, and what it is good for."""
    cpus = Table(*CPU_HEADINGS)
    for cpu in cpu_profiles():
        _add(cpus, *cpu_row(cpu))
    gpus = Table("GPU", "names", "tensor cores")
    for gpu in gpu_profiles():
        _add(gpus, gpu.sm, ", ".join(gpu.names), ", ".join(gpu.tensor_formats))
    console = Console()
    console.print(cpus)
    console.print(gpus)


def nominal_hardware(profile: CpuProfile) -> Hardware:
    """Return a CPU of the table with cores and memory that stand for any."""
    return profile.hardware(NOMINAL_CORES, NOMINAL_MEMORY_BYTES)


def _print_title(spec: TargetSpec) -> None:
    _line(f"{spec.name}: {spec.runtime} by {spec.vendor}, {spec.artifact_kind}")


def _print_state(found: Availability) -> None:
    lacking = "; ".join(found.missing)
    state = "ready" if found.ok else "not ready"
    _line(f"{state} ({lacking})" if lacking else state)
    for name, version in found.tool_versions.items():
        _line(f"  {name} {version}")


def _print_abilities(target: Target, hardware: Hardware) -> None:
    spec = target.spec
    # what is prepared here is made for a GPU, whichever CPUs can prepare it
    is_prepared = isinstance(target, Preparable) and hardware.architecture == GPU
    if hardware.architecture not in spec.architectures and not is_prepared:
        _line(f"no recipes: made for {', '.join(spec.architectures)}, not {hardware.architecture}")
        return
    console = Console()
    console.print(_precisions(spec, hardware))
    if "int8" in spec.precisions and hardware.architecture != GPU:
        console.print(_schemes(spec, hardware))
    console.print(_recipes(target, hardware))


def _precisions(spec: TargetSpec, hardware: Hardware) -> Table:
    table = Table("precision", "accelerated", "computed with")
    for precision in spec.precisions:
        found = explain_precision(hardware, precision, spec.runtime)
        _add(table, precision, "yes" if found.accelerated else "no", found.words)
    return table


def _schemes(spec: TargetSpec, hardware: Hardware) -> Table:
    table = Table("int8 scheme", "exact", "why")
    for scheme in int8_schemes(hardware, spec.runtime):
        _add(table, scheme.integers, "yes" if scheme.exact else "no", scheme.note)
    return table


def _recipes(target: Target, hardware: Hardware) -> Table:
    table = Table("recipe", "backed by", "why")
    for recipe in target.candidates(None, hardware):
        words = explain_recipe(recipe, hardware, target.spec.runtime)
        _add(table, recipe.name, words, recipe.why)
    return table


def _add(table: Table, *cells: str) -> None:
    """Add a row of plain text: a vendor's words may look like rich's markup."""
    table.add_row(*map(escape, cells))


def _accelerated(row: TargetRow, hardware: Hardware) -> str:
    if row.spec is None:
        return "-"
    if hardware.architecture not in row.spec.architectures:
        return f"not made for {hardware.architecture}"
    found = accelerated_precisions(hardware, row.runtime)
    return ", ".join(one for one in row.precisions if one in found) or "float32 only"


def _numbers(profile: CpuProfile) -> str:
    kind = "implementer/part" if profile.architecture == "aarch64" else "family/model"
    return f"{kind} {', '.join(profile.numbers)}"


def _line(text: str) -> None:
    Console().print(text, highlight=False, markup=False, soft_wrap=True)
