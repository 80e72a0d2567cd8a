"""What sentence-transformers gives with ONNX Runtime: FP32, dynamic int8, optimized graphs."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path

_PACKAGES = ("sentence-transformers", "transformers", "optimum", "optimum-onnx", "onnxruntime")


def main(request_file: str, answer_file: str) -> None:
    """Export `model` into `output`, quantize it there for `presets`, optimize it to `levels`."""
    from sentence_transformers import (
        SentenceTransformer,
        export_dynamic_quantized_onnx_model,
        export_optimized_onnx_model,
    )

    request = json.loads(Path(request_file).read_text("utf-8"))
    model = SentenceTransformer(
        request["model"],
        backend="onnx",
        device="cpu",
        model_kwargs={"provider": "CPUExecutionProvider"},
    )
    model.save_pretrained(request["output"])
    for preset in request["presets"]:
        export_dynamic_quantized_onnx_model(model, preset, request["output"])
    for level in request["levels"]:
        export_optimized_onnx_model(model, level, request["output"])
    made = (*request["presets"], *request["levels"])
    answer = {
        "inputs": list(model[0].auto_model.input_names),
        "files": {
            "float32": "onnx/model.onnx",
            **{name: _file_of(name, Path(request["output"])) for name in made},
        },
        "versions": {name: version(name) for name in _PACKAGES},
    }
    Path(answer_file).write_text(json.dumps(answer), "utf-8")


def _file_of(name: str, folder: Path) -> str:
    """Find what a helper wrote: its default name begins with the type of the weights."""
    (found,) = folder.glob(f"onnx/model_*{name}.onnx")
    return found.relative_to(folder).as_posix()


if __name__ == "__main__":
    main(*sys.argv[1:])
