"""What the labels of training texts add: classes that FP32 tells apart stay apart.

Each class has a centre, the mean of FP32's embeddings of its texts. A text's margin is how much
closer it is to its own centre than to the nearest other. Training takes no text further than FP32
does: it is only told of margins that the student has lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from exporter.values import TextLabels
from targets.contract import FloatArray, IntArray

if TYPE_CHECKING:
    from torch import Tensor

MOST_TEXTS_OF_A_CLASS = 20
"""So many say where its centre is."""


def only_seen(labels: TextLabels, seen: IntArray) -> TextLabels | None:
    """Leave out classes that none of some texts has; None where fewer than two are left.

    Args:
        labels: of all texts.
        seen: indices of the texts that are trained on.
    """
    found = np.unique(labels.of_text[seen])
    found = found[found >= 0]
    if len(found) < 2:
        return None
    at = np.searchsorted(found, labels.of_text).clip(max=len(found) - 1)
    of_text = np.where(found[at] == labels.of_text, at, -1)
    return TextLabels(names=tuple(labels.names[one] for one in found), of_text=of_text)


def texts_of_centres(labels: TextLabels, seed: int) -> IntArray:
    """Choose the texts that centres are made of: indices, ascending."""
    rng = np.random.default_rng(seed)
    chosen = []
    for number in range(len(labels.names)):
        of_class = np.flatnonzero(labels.of_text == number)
        chosen.append(rng.permutation(of_class)[:MOST_TEXTS_OF_A_CLASS])
    return np.sort(np.concatenate(chosen))


@dataclass(frozen=True, slots=True, kw_only=True)
class Centres:
    """Where FP32 has the classes.

    Args:
        rows: unit length, shape [num_classes, embedding_dim], float32.
    """

    rows: FloatArray

    def accuracy(self, embeddings: FloatArray, classes: IntArray) -> float:
        """Return the share of texts whose nearest centre is their own.

        Args:
            embeddings: shape [num_texts, embedding_dim].
            classes: shape [num_texts], none of them -1.
        """
        return float(((embeddings @ self.rows.T).argmax(axis=1) == classes).mean())

    def lost_margin(self, found: Tensor, wanted: Tensor, classes: Tensor) -> Tensor:
        """Return the mean margin that a batch has lost.

        Args:
            found: unit embeddings of the student, shape [batch_size, embedding_dim].
            wanted: those of FP32.
            classes: int64, shape [batch_size]; -1 without a label, which counts as nothing lost.
        """
        import torch

        rows = torch.from_numpy(self.rows)
        labelled = classes >= 0
        own = classes[labelled, None]

        def margin(embeddings: Tensor) -> Tensor:
            similar = embeddings[labelled] @ rows.T
            others = similar.scatter(1, own, -2.0).max(dim=1).values
            return similar.gather(1, own)[:, 0] - others

        lost = (margin(wanted) - margin(found)).clamp(min=0.0)
        return lost.sum() / max(len(classes), 1)


def make_centres(embeddings: FloatArray, classes: IntArray, num_classes: int) -> Centres:
    """Average the embeddings of each class.

    Args:
        embeddings: shape [num_texts, embedding_dim], float32.
        classes: shape [num_texts]; every class has at least one text.
        num_classes: how many there are.
    """
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    rows = np.stack([unit[classes == one].mean(axis=0) for one in range(num_classes)])
    return Centres(rows=(rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32))
