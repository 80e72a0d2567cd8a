"""What sentence-transformers gives by default with OpenVINO: FP32 and NNCF static int8.

The int8 recipe is the peer's own in everything (padding to 384 tokens, 128 samples, its
quantization settings) but the texts: its default data set comes from the hub.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path

_PACKAGES = ("sentence-transformers", "transformers", "optimum-intel", "openvino", "nncf")


def main(request_file: str, answer_file: str) -> None:
    """Export `model` into `output` and quantize it there with `texts` for calibration."""
    from sentence_transformers import SentenceTransformer, export_static_quantized_openvino_model

    request = json.loads(Path(request_file).read_text("utf-8"))
    model = SentenceTransformer(request["model"], backend="openvino", device="cpu")
    model.save_pretrained(request["output"])
    export_static_quantized_openvino_model(
        model,
        None,
        request["output"],
        dataset_name=_write_texts(request["texts"], Path(answer_file).with_name("texts")),
        dataset_config_name="default",
        dataset_split="train",
        column_name="sentence",
    )
    answer = {
        "inputs": list(model[0].auto_model.input_names),
        "files": {
            "float32": "openvino/openvino_model.xml",
            "int8": "openvino/openvino_model_qint8_quantized.xml",
        },
        "versions": {name: version(name) for name in _PACKAGES},
    }
    Path(answer_file).write_text(json.dumps(answer), "utf-8")


def _write_texts(texts: list[str], folder: Path) -> str:
    """Lay the texts out as a local data set; returns what `load_dataset` takes."""
    folder.mkdir()
    lines = (json.dumps({"sentence": text}) for text in texts)
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    return str(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
