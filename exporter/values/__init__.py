"""The frozen values that the stages hand to each other through the pipeline.

A leaf of the house: every stage may import it, it imports only the contract.
"""

from exporter.values.compatibility import (
    Compatibility,
    CompatibilityCell,
    Exchange,
    MissingMember,
    SpaceMember,
    Survival,
    Upgrade,
)
from exporter.values.encoder import (
    EncoderSpec,
    ParityReport,
)
from exporter.values.fidelity import (
    Estimate,
    Fidelity,
    LabelMetric,
    LengthSlice,
    Neighbour,
    Stability,
    WorstText,
)
from exporter.values.job import BuildJob, JobArtifact, JobFile
from exporter.values.latency import (
    Latency,
    TimedSeries,
)
from exporter.values.quantization import (
    CurvePoint,
    LabelsSummary,
    LayerSensitivity,
    MethodScore,
    QuantizationSummary,
    TableSensitivity,
    TrainingSummary,
)
from exporter.values.record import (
    ExportRecord,
    Provenance,
    ShippedFile,
    TargetResult,
)
from exporter.values.space import (
    SpaceModel,
    artifact_space,
    model_facts,
    reference_space,
)
from exporter.values.texts import (
    EvaluationEmbeddings,
    EvaluationSet,
    EvaluationSplits,
    Judgements,
    ScoredPairs,
    TextLabels,
    TextSet,
    TextsSummary,
    fingerprint_texts,
)
from exporter.values.tournament import (
    OBJECTIVES,
    CandidateResult,
    Objective,
    VariantResult,
)

__all__ = [
    "OBJECTIVES",
    "BuildJob",
    "CandidateResult",
    "Compatibility",
    "CompatibilityCell",
    "CurvePoint",
    "EncoderSpec",
    "Estimate",
    "EvaluationEmbeddings",
    "EvaluationSet",
    "EvaluationSplits",
    "Exchange",
    "ExportRecord",
    "Fidelity",
    "JobArtifact",
    "JobFile",
    "Judgements",
    "LabelMetric",
    "LabelsSummary",
    "Latency",
    "LayerSensitivity",
    "LengthSlice",
    "MethodScore",
    "MissingMember",
    "Neighbour",
    "Objective",
    "ParityReport",
    "Provenance",
    "QuantizationSummary",
    "ScoredPairs",
    "ShippedFile",
    "SpaceMember",
    "SpaceModel",
    "Stability",
    "Survival",
    "TableSensitivity",
    "TargetResult",
    "TextLabels",
    "TextSet",
    "TextsSummary",
    "TimedSeries",
    "TrainingSummary",
    "Upgrade",
    "VariantResult",
    "WorstText",
    "artifact_space",
    "fingerprint_texts",
    "model_facts",
    "reference_space",
]
