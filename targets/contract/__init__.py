"""What every target, device and stage agrees on: frozen values and protocols.

Only the standard library and numpy are imported here, so that a vendor's plug-in
and the runner's client can depend on it without pulling in any runtime.
"""

from targets.contract.artifacts import (
    ArtifactFile,
    CompiledArtifact,
    CompileRequest,
)
from targets.contract.attention import QuantizesAttention
from targets.contract.graph import (
    OnnxArtifact,
    TensorSpec,
)
from targets.contract.hardware import (
    LOCAL,
    LOCAL_CUDA,
    Availability,
    Hardware,
    TargetSpec,
)
from targets.contract.judgement import (
    Check,
    Interval,
    Verdict,
)
from targets.contract.preparation import (
    FinishRequest,
    Preparable,
    Structure,
    hardware_of,
)
from targets.contract.progress import (
    Progress,
    no_progress,
)
from targets.contract.protocols import (
    Device,
    Runner,
    Target,
    Tunable,
    variants_of,
)
from targets.contract.recipes import (
    CALIBRATORS,
    PRECISIONS,
    Calibrator,
    IntegerScheme,
    LayerOverride,
    Precision,
    QdqScheme,
    Quantizer,
    Recipe,
    Switch,
)
from targets.contract.running import (
    ALONE,
    Batching,
    ExecutedPrecision,
    RunnerInfo,
    RunPlan,
    RuntimeVariant,
    Workload,
)
from targets.contract.source import (
    SourceModel,
)
from targets.contract.tokens import (
    FloatArray,
    IntArray,
    TokenSequences,
)

__all__ = [
    "ALONE",
    "CALIBRATORS",
    "LOCAL",
    "LOCAL_CUDA",
    "PRECISIONS",
    "ArtifactFile",
    "Availability",
    "Batching",
    "Calibrator",
    "Check",
    "CompileRequest",
    "CompiledArtifact",
    "Device",
    "ExecutedPrecision",
    "FinishRequest",
    "FloatArray",
    "Hardware",
    "IntArray",
    "IntegerScheme",
    "Interval",
    "LayerOverride",
    "OnnxArtifact",
    "Precision",
    "Preparable",
    "Progress",
    "QdqScheme",
    "Quantizer",
    "QuantizesAttention",
    "Recipe",
    "RunPlan",
    "Runner",
    "RunnerInfo",
    "RuntimeVariant",
    "SourceModel",
    "Structure",
    "Switch",
    "Target",
    "TargetSpec",
    "TensorSpec",
    "TokenSequences",
    "Tunable",
    "Verdict",
    "Workload",
    "hardware_of",
    "no_progress",
    "variants_of",
]
