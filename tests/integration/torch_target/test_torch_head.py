"""What the runner makes of token states is what Sentence Transformers makes of them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from targets.errors import CompileError
from targets.pytorch.head import read_head
from targets.pytorch.pooling import Head

torch = pytest.importorskip("torch")
MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
HIDDEN = 6


@pytest.fixture
def states():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(3, 5, HIDDEN, generator=generator)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]])
    return rows, mask


def write(folder, modules):
    entries = [{"type": "sentence_transformers.models.Transformer", "path": ""}]
    for number, (name, settings) in enumerate(modules, 1):
        place = folder / f"{number}_{name}"
        place.mkdir()
        (place / "config.json").write_text(json.dumps(settings))
        entries.append({"type": f"sentence_transformers.models.{name}", "path": place.name})
    (folder / "modules.json").write_text(json.dumps(entries))


def apply(folder, states, dim=HIDDEN):
    from safetensors.torch import save_file

    head = read_head(folder, dim)
    if head.tensors:
        save_file(head.tensors, folder / "head.safetensors")
    return Head(folder, list(head.steps))(*states).numpy()


@pytest.mark.parametrize("modes", [*((one,) for one in MODES), ("max", "cls")])
def test_pooling(tmp_path, states, modes):
    from sentence_transformers.sentence_transformer.modules import Pooling

    write(tmp_path, [("Pooling", {"pooling_mode": list(modes)})])
    theirs = Pooling(HIDDEN, list(modes))
    features = {"token_embeddings": states[0], "attention_mask": states[1]}
    expected = theirs(features)["sentence_embedding"].numpy()
    found = apply(tmp_path, states, HIDDEN * len(modes))
    assert np.allclose(found, expected, atol=1e-6)


def test_dense_layer_norm_and_normalization(tmp_path, states):
    from safetensors.torch import save_file
    from sentence_transformers.sentence_transformer.modules import Dense

    dense = Dense(HIDDEN, 4, activation_function=torch.nn.Tanh())
    norm = torch.nn.LayerNorm(4)
    torch.nn.init.normal_(norm.weight)
    settings = {"activation_function": "torch.nn.modules.activation.Tanh"}
    pooling = {"pooling_mode_mean_tokens": True}
    modules = [("Pooling", pooling), ("Dense", settings), ("LayerNorm", {}), ("Normalize", {})]
    write(tmp_path, modules)
    stored = {key: value.contiguous() for key, value in dense.state_dict().items()}
    save_file(stored, tmp_path / "2_Dense" / "model.safetensors")
    named = {f"norm.{key}": value for key, value in norm.state_dict().items()}
    save_file(named, tmp_path / "3_LayerNorm" / "model.safetensors")
    mask = states[1].unsqueeze(-1).float()
    mean = (states[0] * mask).sum(1) / mask.sum(1)
    with torch.no_grad():
        expected = norm(dense({"sentence_embedding": mean})["sentence_embedding"])
        expected = torch.nn.functional.normalize(expected, dim=1).numpy()
    assert np.allclose(apply(tmp_path, states, 4), expected, atol=1e-6)
    assert apply(tmp_path, states, 3).shape == (3, 3), "it is not cut"


def test_another_pooling_gives_other_embeddings(tmp_path, states):
    """The twin of the above: the comparison tells modes apart."""
    folders = []
    for mode in ("mean", "cls"):
        folder = tmp_path / mode
        folder.mkdir()
        write(folder, [("Pooling", {"pooling_mode": mode})])
        folders.append(apply(folder, states))
    assert not np.allclose(*folders, atol=1e-3)


def test_unknown_and_damaged_modules_are_refused(tmp_path):
    write(tmp_path, [("WordWeights", {})])
    with pytest.raises(CompileError, match="modules behind") as refused:
        read_head(tmp_path, HIDDEN)
    assert "WordWeights" in refused.value.why
    (tmp_path / "modules.json").write_text("[")
    with pytest.raises(CompileError, match="modules behind"):
        read_head(tmp_path, HIDDEN)
