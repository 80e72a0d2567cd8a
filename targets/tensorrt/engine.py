"""From a graph and a build plan to an engine, by whichever TensorRT module is handed in.

The same calls serve `tensorrt` 10 and 11 and `tensorrt_rtx`: only names that all three have are
used. Everything TensorRT says with False, None or -1 is an error here, and logger, builder, network
and parser live until the engine is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from targets.errors import CompileError
from targets.tensorrt.build_plan import BuildPlan, Profile
from targets.tensorrt.timing_cache import TimingCache

Module = Any
"""`tensorrt` or `tensorrt_rtx`, untyped."""
_SHOWN_ERRORS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """A serialized engine and what was said while it was built.

    Args:
        data: the plan, as it is written to a file.
        log: every line, the detailed list of layers among them.
        warnings: lines that TensorRT itself calls warnings.
    """

    data: bytes
    log: tuple[str, ...]
    warnings: tuple[str, ...]


def build_engine(
    module: Module,
    graph: Path,
    plan: BuildPlan,
    timings: TimingCache | None = None,
    calibrator: Any = None,  # noqa: ANN401
) -> Engine:
    """Build an engine from an ONNX file.

    Args:
        module: TensorRT's Python module.
        graph: the ONNX file, its external data beside it.
        plan: how; its `graph` is not looked at.
        timings: of kernels, from earlier builds; None: everything is timed anew.
        calibrator: of TensorRT 10, see `calibrator.build_calibrated`; it needs a float graph, whose
            types become TensorRT's choice. None: they are the graph's.

    Raises:
        CompileError: TensorRT refuses the graph (with node and operator), a profile, or to build.
    """
    logger = _make_logger(module)
    builder = module.Builder(logger)
    network = _required(builder.create_network(_network_flags(module, calibrator)), "network")
    parser = module.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        raise _refused(parser, graph)
    _require_inputs(network, plan)
    config = _required(builder.create_builder_config(), "builder configuration")
    _configure(module, config, plan)
    if timings is not None:
        timings.attach(config)
    for number, shapes in enumerate(plan.profiles):
        profile = _add_profile(builder, config, plan, shapes, number)
    if calibrator is not None:
        _calibrate(module, config, calibrator, profile)
    data = builder.build_serialized_network(network, config)
    if timings is not None and data is not None:
        timings.keep(config)
    if data is None:
        raise CompileError(
            f"TensorRT builds no engine from {graph.name}",
            why="; ".join(logger.problems[-_SHOWN_ERRORS:]) or "it gives no reason",
            hint="see docs/tensorrt.md for what it refuses",
        )
    return Engine(
        data=bytes(memoryview(data)), log=tuple(logger.lines), warnings=tuple(logger.warnings)
    )


def _required(made: Any, what: str) -> Any:  # noqa: ANN401
    if made is None:
        raise CompileError(
            f"TensorRT makes no {what}",
            why="it answers with None, as where memory is short or its libraries do not fit",
            hint="`exporter targets tensorrt` prints the versions that are installed",
        )
    return made


def _make_logger(module: Module) -> Any:  # noqa: ANN401 - its base class is the module's
    severity = module.ILogger.Severity
    bad = (severity.INTERNAL_ERROR, severity.ERROR)

    class Logger(module.ILogger):  # type: ignore[misc]
        """Keeps what TensorRT says."""

        def __init__(self) -> None:
            super().__init__()
            self.lines: list[str] = []
            self.problems: list[str] = []
            self.warnings: list[str] = []

        def log(self, level: Any, message: str) -> None:  # noqa: ANN401
            self.lines.append(message)
            if level in bad:
                self.problems.append(message)
            elif level == severity.WARNING:
                self.warnings.append(message)

    return Logger()


def _network_flags(module: Module, calibrator: Any) -> int:  # noqa: ANN401
    """Types are those of the graph, nowhere TensorRT's choice, unless it is to calibrate."""
    if calibrator is not None:
        return 0
    return 1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def _refused(parser: Any, graph: Path) -> CompileError:  # noqa: ANN401
    errors = [parser.get_error(number) for number in range(parser.num_errors)]
    told = [f"{one.node_name()} ({one.node_operator()}): {one.desc()}" for one in errors]
    return CompileError(
        f"TensorRT's parser refuses {graph.name}",
        why="; ".join(told[:_SHOWN_ERRORS]) or "it gives no reason",
        hint="see docs/tensorrt.md for what it refuses",
    )


def _require_inputs(network: Any, plan: BuildPlan) -> None:  # noqa: ANN401
    """An unknown input in a profile is accepted in silence; nothing may depend on that."""
    names = [network.get_input(number).name for number in range(network.num_inputs)]
    if sorted(names) != sorted(plan.inputs):
        raise CompileError(
            f"the graph takes {sorted(names)}, the build plan feeds {sorted(plan.inputs)}",
            hint="prepare the bundle again",
        )


def _configure(module: Module, config: Any, plan: BuildPlan) -> None:  # noqa: ANN401
    config.profiling_verbosity = module.ProfilingVerbosity.DETAILED
    config.builder_optimization_level = plan.optimization_level
    config.avg_timing_iterations = plan.timing_iterations
    config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, plan.workspace_bytes)
    if plan.hardware_compatible:
        config.hardware_compatibility_level = module.HardwareCompatibilityLevel.AMPERE_PLUS
    if plan.version_compatible:
        config.set_flag(module.BuilderFlag.VERSION_COMPATIBLE)
    if plan.compute_capabilities:
        _set_capabilities(module, config, plan)


def _set_capabilities(module: Module, config: Any, plan: BuildPlan) -> None:  # noqa: ANN401
    config.num_compute_capabilities = len(plan.compute_capabilities)
    for number, capability in enumerate(plan.compute_capabilities):
        name = f"SM{capability.replace('.', '')}"
        value = getattr(module.ComputeCapability, name, None)
        if value is None or not config.set_compute_capability(value, number):
            known = ", ".join(_capabilities(module))
            raise CompileError(
                f"this TensorRT does not build for compute capability {capability}",
                why=f"it knows {known}",
                hint="--compute-capability with one of those",
            )


def _capabilities(module: Module) -> Iterator[str]:
    for name in sorted(module.ComputeCapability.__members__):
        if name.startswith("SM"):
            yield f"{name[2:-1]}.{name[-1]}"


def _add_profile(
    builder: Any,  # noqa: ANN401
    config: Any,  # noqa: ANN401
    plan: BuildPlan,
    shapes: Profile,
    number: int,
) -> Any:  # noqa: ANN401
    profile = _required(builder.create_optimization_profile(), "optimization profile")
    for name in plan.inputs:
        profile.set_shape(name, shapes.smallest, shapes.typical, shapes.largest)
    # a reversed range is noticed by these two alone
    if not profile or config.add_optimization_profile(profile) < 0:
        raise CompileError(
            f"TensorRT refuses optimization profile {number}",
            why=f"smallest {shapes.smallest}, typical {shapes.typical}, largest {shapes.largest}",
            hint="sizes must not fall from smallest to largest",
        )
    return profile


def _calibrate(module: Module, config: Any, calibrator: Any, profile: Any) -> None:  # noqa: ANN401
    """Let TensorRT 10 choose types and scales; it calibrates at the profile's typical shape."""
    config.set_flag(module.BuilderFlag.FP16)
    config.set_flag(module.BuilderFlag.INT8)
    config.int8_calibrator = calibrator
    if not config.set_calibration_profile(profile):
        raise CompileError("TensorRT refuses the calibration profile")
