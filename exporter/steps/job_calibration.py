"""Calibration texts for a build whose own tool chooses the scales."""

from __future__ import annotations

from exporter.config import Settings
from exporter.values import BuildJob, EncoderSpec, EvaluationSet, EvaluationSplits
from targets.contract import TokenSequences
from targets.errors import UsageError


def calibration_tokens(
    settings: Settings, spec: EncoderSpec, job: BuildJob, evaluation: EvaluationSet
) -> TokenSequences:
    """Read and tokenize calibration texts; none of them may be one that certifies.

    Args:
        settings: which texts (None: the built-in ones), field, how many, seed.
        spec: the source model, with the bundle's own tokenizer.
        job: what is built.
        evaluation: the texts of the job.

    Raises:
        UsageError: nothing in the job is int8.
        TextsError: a file is wrong, there are too few texts, or one is an evaluation text too.
    """
    from exporter.source.corpus import load_calibration
    from exporter.source.splits import evaluation_texts
    from exporter.source.tokenizer import load_tokenizer

    if not any(one.recipe.precision == "int8" for one in job.artifacts):
        names = ", ".join(one.recipe.name for one in job.artifacts)
        raise UsageError(
            f"--calibrator: nothing that {job.target} builds from this bundle is int8",
            why=f"its job holds {names}",
            hint="leave it out, or prepare the bundle with --precision int8",
        )
    splits = EvaluationSplits(dev=None, test=evaluation, shared_documents=False)
    texts = load_calibration(
        settings.calibration,
        field=settings.field,
        num_samples=settings.num_samples,
        seed=settings.seed,
        exclude=evaluation_texts(splits),
    )
    return load_tokenizer(spec).encode(texts.texts)
