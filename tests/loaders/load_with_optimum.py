"""Runs in a side environment: load bundles with Optimum's own classes and say what was loaded.

Called as `python load_with_optimum.py REQUEST.json ANSWER.json`. No Sentence Transformers: token
states are pooled here, as its users do it.
"""

import importlib.util
import json
import sys
from pathlib import Path


def main(request_file, answer_file):
    request = json.loads(Path(request_file).read_text("utf-8"))
    answer = {
        name: load(request["backend"], case, request["texts"], request["max_length"])
        for name, case in request["cases"].items()
    }
    Path(answer_file).write_text(json.dumps(answer), "utf-8")


def load(backend, case, texts, max_length):
    """Load one file of one bundle; a failure is an answer too."""
    from transformers import AutoTokenizer

    place = Path(case["file"])
    options = {"subfolder": str(place.parent), "file_name": place.name}
    try:
        model = model_class(backend).from_pretrained(case["bundle"], **options)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    tokenizer = AutoTokenizer.from_pretrained(case["bundle"])
    limit = {"truncation": True, "max_length": max_length, "return_tensors": "pt"}
    embeddings = [pooled(model, tokenizer([text], **limit)) for text in texts]
    about = about_module()
    describe = about.about_openvino if backend == "openvino" else about.about_onnx
    return {"error": None, "embeddings": embeddings, **describe(model, Path(case["bundle"]))}


def model_class(backend):
    if backend == "openvino":
        from optimum.intel import OVModelForFeatureExtraction

        return OVModelForFeatureExtraction
    from optimum.onnxruntime import ORTModelForFeatureExtraction

    return ORTModelForFeatureExtraction


def pooled(model, inputs):
    """The mean of all tokens' states, of length one."""
    import torch

    with torch.inference_mode():
        states = model(**inputs).last_hidden_state
    states = states if isinstance(states, torch.Tensor) else torch.from_numpy(states)
    return torch.nn.functional.normalize(states.mean(dim=1), dim=1)[0].tolist()


def about_module():
    """The program that does the same with Sentence Transformers knows what a session holds."""
    path = Path(__file__).with_name("load_bundles.py")
    spec = importlib.util.spec_from_file_location("load_bundles", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main(*sys.argv[1:])
