"""The error tree and the exit codes.

ExporterError                     what, why, and what to do next
├── UsageError            (2)     a flag, a setting or a file the user gave is wrong
│   ├── UnknownTargetError
│   ├── ConfigError
│   ├── TextsError                a text file; names file and line
│   └── NotInstalledError         a runtime is missing; names the extra
└── StepError             (4)     a step of the pipeline could not be done
    ├── ModelError                the source model cannot be loaded or is unsupported
    ├── ExportError               ONNX export
    │   └── ParityError           ONNX and PyTorch disagree
    ├── CalibrationError          unusable calibration values, or a table that does not fit
    ├── CompileError              a back end refused the graph or recipe
    ├── DeviceError               the runner on a device
    │   ├── RunnerCrashedError    the child died; carries its last lines of stderr
    │   └── RunnerFailedError     the child answered with an error
    │       └── DeviceLacksError  it needs a package or a tool that is not there
    ├── NonFiniteError            NaN or infinity in embeddings
    ├── ShapeMismatchError        embeddings that cannot be compared (exporter.judge.drift)
    └── StorageError              disk full, no permission, damaged bundle or cache
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every command; the worst of several results wins (see `worst`)."""

    PASS = 0
    GATE_FAILED = 1
    USAGE = 2
    INCONCLUSIVE = 3
    STEP_FAILED = 4
    BUG = 70
    INTERRUPTED = 130


_SEVERITY = (
    ExitCode.PASS,
    ExitCode.INCONCLUSIVE,
    ExitCode.GATE_FAILED,
    ExitCode.USAGE,
    ExitCode.STEP_FAILED,
    ExitCode.BUG,
    ExitCode.INTERRUPTED,
)


def worst(*codes: ExitCode) -> ExitCode:
    """Return the most severe of several exit codes; `PASS` when there are none."""
    return max(codes, key=_SEVERITY.index, default=ExitCode.PASS)


class ExporterError(Exception):
    """Base of every error that is not our bug.

    Args:
        what: one sentence: what went wrong; names the file, flag or step.
        why: the cause, as far as it is known; may be empty.
        hint: what to do next; may be empty.
    """

    code = "error"
    exit_code = ExitCode.STEP_FAILED

    def __init__(self, what: str, *, why: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.what]
        if self.why:
            lines.append(f"why: {self.why}")
        if self.hint:
            lines.append(f"do:  {self.hint}")
        return "\n".join(lines)


class UsageError(ExporterError):
    """Something the user gave is wrong."""

    code = "usage"
    exit_code = ExitCode.USAGE


class UnknownTargetError(UsageError):
    """No target of that name is registered."""

    code = "unknown-target"


class ConfigError(UsageError):
    """A configuration file or a flag's value is wrong."""

    code = "config"


class TextsError(UsageError):
    """A calibration or evaluation text file is wrong; `what` names file and line."""

    code = "texts"


class NotInstalledError(UsageError):
    """A package that a target needs is not installed; `hint` names the extra."""

    code = "not-installed"


class StepError(ExporterError):
    """A step of the pipeline could not be done."""

    code = "step"


class ModelError(StepError):
    """The source model is missing, corrupt or of an unsupported kind."""

    code = "model"


class ExportError(StepError):
    """The ONNX export failed."""

    code = "export"


class ParityError(ExportError):
    """The ONNX graph and PyTorch disagree."""

    code = "parity"


class CalibrationError(StepError):
    """Calibration values are unusable, or a calibration table is damaged or does not fit."""

    code = "calibration"


class CompileError(StepError):
    """A back end refused the graph or the recipe."""

    code = "compile"


class DeviceError(StepError):
    """The device or the runner on it failed."""

    code = "device"


class RunnerCrashedError(DeviceError):
    """The runner process ended without an answer; `why` carries its last lines of stderr."""

    code = "runner-crashed"


class RunnerFailedError(DeviceError):
    """The runner answered with an error."""

    code = "runner-failed"


class DeviceLacksError(RunnerFailedError):
    """What was asked for needs a package or a tool that the device does not have."""

    code = "device-lacks"


class NonFiniteError(StepError):
    """Embeddings contain NaN or infinity."""

    code = "non-finite"


class StorageError(StepError):
    """Reading or writing results failed: disk full, no permission, damaged files."""

    code = "storage"
