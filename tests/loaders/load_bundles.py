"""Runs in a side environment: load bundles with sentence-transformers and say what was loaded.

Called as `python load_bundles.py REQUEST.json ANSWER.json`. One process loads many bundles,
because importing the loader takes longer than loading a model.
"""

import hashlib
import json
import sys
from pathlib import Path


def main(request_file, answer_file):
    request = json.loads(Path(request_file).read_text("utf-8"))
    answer = {
        name: load(request["backend"], case, request["texts"])
        for name, case in request["cases"].items()
    }
    Path(answer_file).write_text(json.dumps(answer), "utf-8")


def load(backend, case, texts):
    """Load one bundle; a failure is an answer too."""
    from sentence_transformers import SentenceTransformer

    try:
        model = SentenceTransformer(
            case["bundle"], backend=backend, device="cpu", model_kwargs=case["model_kwargs"]
        )
        embeddings = model.encode(
            texts, batch_size=case["batch_size"], show_progress_bar=False
        ).tolist()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    about = about_openvino if backend == "openvino" else about_onnx
    tokenized = model.tokenizer(texts, truncation=True, max_length=model.max_seq_length)
    return {
        "error": None,
        "embeddings": embeddings,
        "input_ids": tokenized["input_ids"],
        "max_seq_length": model.max_seq_length,
        "modules": [type(module).__name__ for module in model],
        **about(model[0].auto_model, Path(case["bundle"])),
    }


def about_openvino(model, bundle):
    """Prove by content which of the bundle's files is in memory, whatever path it came from."""
    import openvino

    core = openvino.Core()
    loaded = content_of(model.model)
    files = sorted(f for f in bundle.rglob("*.xml") if f.with_suffix(".bin").is_file())
    same = [f for f in files if content_of(core.read_model(f)) == loaded]
    precision = model.request.get_property("INFERENCE_PRECISION_HINT")
    group = model.request.get_property("DYNAMIC_QUANTIZATION_GROUP_SIZE")
    return {
        "same_content": [f.relative_to(bundle).as_posix() for f in same],
        "options": {
            "INFERENCE_PRECISION_HINT": precision.to_string(),
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": str(group),
        },
    }


def content_of(model):
    """Hash types, shapes and constants of all operations, independent of their order."""
    return hashlib.sha256(json.dumps(sorted(map(describe, model.get_ops()))).encode()).hexdigest()


def describe(node):
    shapes = [str(output.get_partial_shape()) for output in node.outputs()]
    kind = node.get_type_name()
    if kind == "Constant":
        return [kind, shapes, hashlib.sha256(node.data.tobytes()).hexdigest()]
    # Loaders may write other symbols into the shapes of what depends on the input.
    return [kind, [], ""]


def about_onnx(model, bundle):
    """ONNX Runtime keeps the path; the outputs tell our graph from a fresh export."""
    path = Path(model.session._model_path).resolve()
    inside = path.is_relative_to(bundle.resolve())
    return {
        "path": path.relative_to(bundle.resolve()).as_posix() if inside else None,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None,
        "outputs": sorted(model.output_names),
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
