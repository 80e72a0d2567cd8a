"""An adapter that runs on every device: masked mean over a table of token vectors, numpy only."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

DEADLY_ID = 1000


def open_session(model, plan):
    """Open the table; a file that is none raises."""
    return TableSession(np.load(Path(model), allow_pickle=False), plan)


class TableSession:
    """Looks vectors up and averages them; dies of one token."""

    def __init__(self, table, plan):
        self.table = table
        self.plan = plan

    def run(self, inputs):
        if (inputs["input_ids"] == DEADLY_ID).any():
            os._exit(3)
        mask = inputs["attention_mask"][:, :, None].astype(np.float32)
        total = (self.table[inputs["input_ids"]] * mask).sum(axis=1)
        return (total / np.maximum(mask.sum(axis=1), 1)).astype(np.float32)

    def inspect(self, inputs):
        return [("Gather", "float32", 1, None)]

    def versions(self):
        return {"table": "1"}

    def options(self):
        return dict(self.plan.options)

    def close(self):
        self.table = None
