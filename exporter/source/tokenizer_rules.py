"""When tokenizer.json alone says how a text becomes tokens.

Transformers 5 does not simply load tokenizer.json: the class named in tokenizer_config.json may
rebuild normalizer, pre-tokenizer and post-processor from its own settings, and these win. Loading
Transformers costs seconds, so the file is taken as it is where the rebuilt tokenizer is known to
be the same; in every other case Transformers builds it.
"""

from __future__ import annotations

from typing import Any

# Classes that load the file as it is (TokenizersBackend in transformers 5.23).
_AS_IT_IS = frozenset({"PreTrainedTokenizer", "TokenizersBackend"})
# Classes that are BertTokenizer under another name.
_BERT = frozenset({"BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer"})
_BERT_MODEL_TYPES = frozenset({"bert", "distilbert", "electra"})
_SETTINGS_THAT_REBUILD = (
    "add_bos_token",
    "add_eos_token",
    "add_prefix_space",
    "auto_map",
    "extra_special_tokens",
    "split_special_tokens",
)
_SPECIAL_TOKENS = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
# How Transformers adds a special token of which only the text is given.
_PLAIN_SPECIAL_TOKEN = {
    "single_word": False,
    "lstrip": False,
    "rstrip": False,
    "normalized": False,
    "special": True,
}


def is_plain(tokenizer: dict[str, Any], settings: dict[str, Any], model_type: str) -> bool:
    """Say whether Transformers would build exactly what tokenizer.json says.

    Args:
        tokenizer: tokenizer.json.
        settings: tokenizer_config.json.
        model_type: the model's type; a BERT-like class counts only where it is the model's own.
    """
    if any(settings.get(key) for key in _SETTINGS_THAT_REBUILD):
        return False
    if not _same_added_tokens(tokenizer, settings):
        return False
    name = str(settings.get("tokenizer_class") or "").removesuffix("Fast")
    if name in _AS_IT_IS:
        return tokenizer.get("post_processor") is not None
    return name in _BERT and model_type in _BERT_MODEL_TYPES and _is_bert(tokenizer, settings)


def _same_added_tokens(tokenizer: dict[str, Any], settings: dict[str, Any]) -> bool:
    """Compare the added tokens of the two files; Transformers adds or changes what differs."""
    added = {str(token["content"]): token for token in tokenizer.get("added_tokens") or []}
    declared = {
        str(token.get("content")): {"id": int(id_), **token}
        for id_, token in (settings.get("added_tokens_decoder") or {}).items()
    }
    named = {_content(settings.get(key)) for key in _SPECIAL_TOKENS} - {None}
    undeclared = {
        str(content): _PLAIN_SPECIAL_TOKEN for content in named if content not in declared
    }
    return all(
        content in added and all(added[content].get(key) == value for key, value in token.items())
        for content, token in {**declared, **undeclared}.items()
    )


def _content(token: object) -> str | None:
    if isinstance(token, dict):
        return str(token["content"]) if "content" in token else None
    return str(token) if token else None


def _is_bert(tokenizer: dict[str, Any], settings: dict[str, Any]) -> bool:
    """Compare with what BertTokenizer.__init__ builds (transformers 5.23)."""
    model = tokenizer.get("model") or {}
    return (
        model.get("type") == "WordPiece"
        and model.get("unk_token") == (_content(settings.get("unk_token")) or "[UNK]")
        and model.get("continuing_subword_prefix") == "##"
        and model.get("max_input_chars_per_word") == 100
        and tokenizer.get("normalizer") == _bert_normalizer(settings)
        and (tokenizer.get("pre_tokenizer") or {}).get("type") == "BertPreTokenizer"
        and _post_processes_like_bert(tokenizer, settings)
    )


def _bert_normalizer(settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": settings.get("tokenize_chinese_chars", True),
        "strip_accents": settings.get("strip_accents"),
        "lowercase": settings.get("do_lower_case", True),
    }


def _post_processes_like_bert(tokenizer: dict[str, Any], settings: dict[str, Any]) -> bool:
    cls_token = _content(settings.get("cls_token")) or "[CLS]"
    sep_token = _content(settings.get("sep_token")) or "[SEP]"
    wanted = [
        {"SpecialToken": {"id": cls_token, "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": sep_token, "type_id": 0}},
    ]
    post_processor = tokenizer.get("post_processor") or {}
    return (
        post_processor.get("type") == "TemplateProcessing"
        and post_processor.get("single") == wanted
    )
