"""Loading the modules with Sentence Transformers, and hearing what it says about the weights."""

from __future__ import annotations

import re
from typing import Any

from exporter.source.modules import read_modules
from exporter.source.quiet import quiet
from exporter.values import EncoderSpec
from targets.errors import ModelError

# A row of Transformers' load report (create_loading_report in transformers 5.23).
_MISSING_WEIGHT = re.compile(
    r"^\s*(?P<name>[\w.{},* ]+?)\s*\|\s*(?:\x1b\[\w+)?MISSING", re.MULTILINE
)
# Heads that no embedding passes through; checkpoints often lack them.
_UNUSED_WEIGHT = re.compile(r"(^|\.)(pooler|lm_head|cls)\.")
_TEXT_MODALITY = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}


def load_modules(spec: EncoderSpec) -> Any:  # noqa: ANN401
    """Load a SentenceTransformer: float32, CPU, eager attention, safetensors, no network.

    Raises:
        ModelError: if the libraries cannot load it or weights are missing.
    """
    with quiet() as messages:
        try:
            model = _load(spec)
        except Exception as error:  # any of several libraries reads the model's files
            raise ModelError(
                f"the model {spec.model_id} cannot be loaded",
                why=_last_lines(error, messages),
                hint="check that the folder holds one complete model",
            ) from error
    _check_weights(spec, messages)
    model.max_seq_length = spec.max_seq_length
    return model.eval()


def _load(spec: EncoderSpec) -> Any:  # noqa: ANN401
    import torch
    from sentence_transformers import SentenceTransformer

    weights = {
        "attn_implementation": "eager",
        "dtype": torch.float32,
        "use_safetensors": True,
    }
    common = {"local_files_only": True, "trust_remote_code": spec.trust_remote_code}
    if read_modules(spec.directory):
        return SentenceTransformer(
            str(spec.directory), device="cpu", model_kwargs=weights, **common
        )
    return SentenceTransformer(modules=_plain_modules(spec, weights, common), device="cpu")


def _plain_modules(spec: EncoderSpec, weights: dict[str, Any], common: dict[str, Any]) -> list[Any]:
    from sentence_transformers.models import Pooling, Transformer

    transformer = Transformer(
        str(spec.directory),
        model_kwargs={**weights, **common},
        processor_kwargs=dict(common),
        config_kwargs=dict(common),
        modality_config=_TEXT_MODALITY,
        module_output_name="token_embeddings",
    )
    modes = spec.pooling.split("+")
    return [transformer, Pooling(transformer.get_embedding_dimension(), modes)]


def _check_weights(spec: EncoderSpec, messages: list[str]) -> None:
    names = [m["name"] for text in messages for m in _MISSING_WEIGHT.finditer(text)]
    missing = [name for name in names if not _UNUSED_WEIGHT.search(name)]
    if missing:
        raise ModelError(
            f"the weights of {spec.model_id} are incomplete",
            why=f"missing: {', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}; they would "
            "be random numbers",
            hint="fetch the model again, or name the architecture that was saved in config.json",
        )


def _last_lines(error: Exception, messages: list[str]) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[-3:] or messages[-1:] or [repr(error)])
