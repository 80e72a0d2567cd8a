"""Runs in a side environment: configuration and tokenizer of a bundle by Transformers alone.

Called as `python load_with_transformers.py REQUEST.json ANSWER.json`.
"""

import json
import sys
from pathlib import Path


def main(request_file, answer_file):
    from transformers import AutoConfig, AutoTokenizer

    request = json.loads(Path(request_file).read_text("utf-8"))
    config = AutoConfig.from_pretrained(request["bundle"])
    tokenizer = AutoTokenizer.from_pretrained(request["bundle"])
    tokenized = tokenizer(request["texts"], truncation=True, max_length=request["max_length"])
    answer = {
        "model_type": config.model_type,
        "hidden_size": config.hidden_size,
        "pad_token_id": tokenizer.pad_token_id,
        "input_ids": tokenized["input_ids"],
    }
    Path(answer_file).write_text(json.dumps(answer), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
