"""tokenizer.json is taken as it is only where Transformers would build the same."""

import copy
from typing import Any

import pytest

from exporter.source.tokenizer_rules import is_plain


def _special(content: str, number: int, **flags: bool) -> dict[str, Any]:
    token = {
        "id": number,
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }
    return {**token, **flags}


def _bert_file() -> dict[str, Any]:
    return {
        "added_tokens": [_special("[PAD]", 0), _special("[CLS]", 1), _special("[SEP]", 2)],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
            ],
        },
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
        },
    }


def _settings(**more: Any) -> dict[str, Any]:
    return {"tokenizer_class": "BertTokenizer", "pad_token": "[PAD]", "do_lower_case": True, **more}


def test_bert_whose_files_agree() -> None:
    assert is_plain(_bert_file(), _settings(), "bert")
    assert is_plain(_bert_file(), _settings(tokenizer_class="BertTokenizerFast"), "electra")


@pytest.mark.parametrize(
    "change",
    [
        {"do_lower_case": False},
        {"strip_accents": True},
        {"tokenize_chinese_chars": False},
        {"unk_token": "<unk>"},
        {"cls_token": "<s>"},
        {"mask_token": "[MASK]"},
        {"add_eos_token": True},
        {"split_special_tokens": True},
        {"auto_map": {"AutoTokenizer": ["mine.Tokenizer", None]}},
        {"added_tokens_decoder": {"0": _special("[PAD]", 0, lstrip=True)}},
        {"added_tokens_decoder": {"9": _special("[NEW]", 9)}},
        {"tokenizer_class": "RobertaTokenizer"},
        {"tokenizer_class": None},
    ],
)
def test_settings_that_change_the_tokens(change: dict[str, Any]) -> None:
    assert not is_plain(_bert_file(), _settings(**change), "bert")


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("normalizer", None),
        ("pre_tokenizer", {"type": "Whitespace"}),
        ("post_processor", None),
        ("model", {"type": "BPE"}),
    ],
)
def test_files_that_are_not_berts(part: str, value: object) -> None:
    file = copy.deepcopy(_bert_file())
    file[part] = value
    assert not is_plain(file, _settings(), "bert")


def test_bert_class_on_another_architecture() -> None:
    assert not is_plain(_bert_file(), _settings(), "xlm-roberta")


def test_generic_class_takes_the_file_as_it_is() -> None:
    settings = _settings(tokenizer_class="PreTrainedTokenizerFast")
    assert is_plain({**_bert_file(), "normalizer": None}, settings, "modernbert")
    assert not is_plain({**_bert_file(), "post_processor": None}, settings, "modernbert")


def test_special_token_with_flags_of_its_own_must_be_declared() -> None:
    file = _bert_file()
    file["added_tokens"][0]["lstrip"] = True
    assert not is_plain(file, _settings(), "bert")
    declared = {"0": _special("[PAD]", 0, lstrip=True)}
    assert is_plain(file, _settings(added_tokens_decoder=declared), "bert")
