"""A runner's adapter in plain numpy: masked mean over a table of token vectors.

The model file is the table (`.npy`). Options make it misbehave: `at_load` names what
happens while the model is opened, `poison` what happens when token 1000 is fed. `log`
names a file that gets one JSON line per run.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np

POISON_ID = 1000


def open_session(model, plan):
    """Open the table."""
    misbehave(plan.options.get("at_load", ""))
    return TableSession(np.load(model, allow_pickle=False), plan)


class LacksToolError(RuntimeError):
    lacks = "soldering iron"


def misbehave(how):
    """Do what a bad runtime does."""
    if how == "raise":
        raise ValueError("the kernel has no such shape")
    if how == "memory":
        raise MemoryError("4 GB")
    if how == "abort":
        print("assertion failed: blocks > 0", file=sys.stderr, flush=True)
        os.abort()
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "exit":
        os._exit(3)
    if how == "hang":
        threading.Event().wait()
    if how == "lacks":
        raise LacksToolError
    if how == "import":
        import a_runtime_nobody_has  # noqa: F401
    if how == "noise":
        print('{"result": {"num_texts": -1}}', flush=True)
        os.write(1, b"written past Python\n")
        subprocess.run([sys.executable, "-c", "print('from a grandchild')"], check=True)
    if how == "read" and (sys.stdin.read() or os.read(0, 1)):
        raise ValueError("stdin is not empty")


class TableSession:
    """Looks vectors up and averages them."""

    def __init__(self, table, plan):
        self.table = table
        self.plan = plan
        self.run_count = 0

    def run(self, inputs):
        self._log(inputs)
        poisoned = bool((inputs["input_ids"] == POISON_ID).any())
        poison = self.plan.options.get("poison", "") if poisoned else ""
        misbehave(poison)
        mask = inputs["attention_mask"][:, :, None].astype(np.float32)
        vectors = self.table[inputs["input_ids"]] * mask
        rows = vectors.sum(axis=1) / np.maximum(mask.sum(axis=1), 1)
        if poison == "nan":
            rows[(inputs["input_ids"] == POISON_ID).any(axis=1)] = np.nan
        if poison == "shape":
            return rows[:, :-1]
        return rows.astype(np.float64 if poison == "dtype" else np.float32)

    def _log(self, inputs):
        if "log" not in self.plan.options:
            return
        line = {
            "shape": inputs["input_ids"].shape,
            "real": inputs["attention_mask"].sum(axis=1).tolist(),
            "pad_ids": np.unique(inputs["input_ids"][inputs["attention_mask"] == 0]).tolist(),
            "ids": [int(inputs["input_ids"].min()), int(inputs["input_ids"].max())],
            "names": list(inputs),
            "types": int(sum(abs(inputs.get("token_type_ids", np.zeros(1))).ravel())),
            "gc": gc.isenabled(),
        }
        with Path(self.plan.options["log"]).open("a") as stream:
            stream.write(json.dumps(line) + "\n")

    def inspect(self, inputs):
        return [("Gather", "float32", 1, 0.25), ("Mean", "float32", len(inputs), None)]

    def versions(self):
        return {"table": "1.0"}

    def options(self):
        shown = {"cwd": str(Path.cwd()), "omp": os.environ["OMP_NUM_THREADS"]}
        return dict(self.plan.options) | shown | {"hint": "f32"}

    def close(self):
        if "closed" in self.plan.options:
            Path(self.plan.options["closed"]).touch()
