"""A second opinion on what kind of model this is, from Optimum's TasksManager."""

from __future__ import annotations

from exporter.source.quiet import quiet
from exporter.values import EncoderSpec

# Tasks whose checkpoints hold an encoder that is commonly used for embeddings.
_ENCODER_TASKS = frozenset({"feature-extraction", "fill-mask", "text-generation", "pretraining"})


def compare_with_optimum(spec: EncoderSpec) -> tuple[str, ...]:
    """Compare library and task with Optimum's inference; disagreements become warnings.

    Optimum infers the library from the files and the task from the architecture's class; for
    code of the model's own it knows no class.
    """
    library, task = _infer(spec)
    warnings = []
    if library not in (None, spec.library):
        warnings.append(f"Optimum takes {spec.model_id} for a {library} model, not {spec.library}")
    if task is not None and task not in _ENCODER_TASKS:
        warnings.append(
            f"{spec.architecture} is made for {task}, not for embeddings: its head is left away"
        )
    return tuple(warnings)


def _infer(spec: EncoderSpec) -> tuple[str | None, str | None]:
    with quiet():
        import transformers
        from optimum.exporters.tasks import TasksManager

        library = task = None
        try:
            library = TasksManager.infer_library_from_model(str(spec.directory))
            model_class = getattr(transformers, spec.architecture, None)
            if isinstance(model_class, type):
                task = TasksManager.infer_task_from_model(model_class)
        except (ValueError, OSError, KeyError, AttributeError):
            # Optimum has no opinion about this architecture, which is no reason to stop.
            return library, task
        return library, task
