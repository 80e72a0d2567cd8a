"""What sentence-transformers gives by default with ONNX Runtime: FP32 and dynamic int8."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path

_PACKAGES = ("sentence-transformers", "transformers", "optimum", "optimum-onnx", "onnxruntime")


def main(request_file: str, answer_file: str) -> None:
    """Export `model` into `output` and quantize it there with the preset `preset`."""
    from sentence_transformers import SentenceTransformer, export_dynamic_quantized_onnx_model

    request = json.loads(Path(request_file).read_text("utf-8"))
    model = SentenceTransformer(
        request["model"],
        backend="onnx",
        device="cpu",
        model_kwargs={"provider": "CPUExecutionProvider"},
    )
    model.save_pretrained(request["output"])
    export_dynamic_quantized_onnx_model(model, request["preset"], request["output"])
    answer = {
        "inputs": list(model[0].auto_model.input_names),
        "files": {
            "float32": "onnx/model.onnx",
            "int8": f"onnx/model_qint8_{request['preset']}.onnx",
        },
        "versions": {name: version(name) for name in _PACKAGES},
    }
    Path(answer_file).write_text(json.dumps(answer), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
