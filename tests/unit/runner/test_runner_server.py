"""The protocol, spoken in this process."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path

import numpy as np
import pytest

from targets.contract import TokenSequences
from targets.runner.channel import Channel
from targets.runner.server import Server

ADAPTER = """
import numpy as np

def open_session(model, plan):
    return Session()

class Session:
    def run(self, inputs):
        return np.ones((len(inputs["input_ids"]), 2), np.float32)
    def inspect(self, inputs):
        return [("Ones", "float32", 1, 1.0)]
    def versions(self):
        return {}
    def options(self):
        return {}
    def close(self):
        pass
"""


@pytest.fixture
def load(tmp_path):
    (tmp_path / "adapter.py").write_text(ADAPTER)
    (tmp_path / "model").write_bytes(b"")
    plan = {
        "adapter": str(tmp_path / "adapter.py"),
        "model": str(tmp_path / "model"),
        "inputs": ["input_ids", "attention_mask"],
        "output": "sentence_embedding",
        "pad_token_id": 0,
        "embedding_dim": 2,
        "max_seq_length": 32,
        "options": {},
        "length_multiple": 8,
        "max_batch_tokens": 64,
    }
    return {"command": "load", "plan": plan}


def ask(*commands: dict | bytes) -> list[dict]:
    """Send commands and `exit`; return what was answered."""
    lines = [c if isinstance(c, bytes) else json.dumps(c).encode() for c in commands]
    answers = io.BytesIO()
    asked = io.BytesIO(b"\n".join([*lines, b'{"command": "exit"}', b""]))
    channel = Channel(asked, answers, lambda: pytest.fail("the caller was not lost"))
    Server(channel, 1, {"num_threads": "1"}, ("said before",)).serve()
    return [json.loads(line) for line in answers.getvalue().splitlines()]


def error_of(answer: dict) -> tuple[str, str]:
    return answer["error"]["kind"], answer["error"]["message"]


def test_each_command_is_answered_once_and_in_order(load, tmp_path):
    tokens, output = tmp_path / "tokens.npz", tmp_path / "out.npy"
    TokenSequences.from_lists([[5, 6], [7]], 0).save(tokens)
    files = {"tokens": str(tokens), "output": str(output)}
    loaded, progress, embedded, inspected, info = ask(
        load,
        {"command": "embed", **files},
        {"command": "inspect", "tokens": str(tokens)},
        {"command": "info"},
    )
    assert loaded["result"]["options"] == {"num_threads": "1"}
    assert loaded["result"]["warnings"] == ["said before"]
    assert progress == {"progress": {"done": 2, "total": 2}}
    assert embedded == {"result": {"num_texts": 2}}
    assert inspected == {"result": {"rows": [["Ones", "float32", 1, 1.0]]}}
    assert info["result"]["load_s"] == loaded["result"]["load_s"]
    np.testing.assert_array_equal(np.load(output), np.ones((2, 2), np.float32))


@pytest.mark.parametrize("command", ["embed", "time", "inspect", "info"])
def test_nothing_works_before_load(command):
    (answer,) = ask({"command": command, "tokens": "t.npz"})
    assert error_of(answer) == ("command", "nothing is loaded yet")


def test_an_unknown_command_is_named():
    (answer,) = ask({"command": "dance"})
    assert error_of(answer) == ("command", "unknown command 'dance'")


@pytest.mark.parametrize("line", [b"{", b"[]", b"\xff\xfe", b"", b'"load"'])
def test_a_line_that_is_no_command_does_not_end_the_runner(line, load):
    first, second = ask(line, load)
    assert error_of(first)[0] == "command"
    assert "result" in second


def test_a_second_load_is_refused(load):
    _, answer = ask(load, load)
    assert "loaded already" in error_of(answer)[1]


@pytest.mark.parametrize("missing", ["model", "inputs", "output", "options"])
def test_an_incomplete_plan_is_refused(load, missing):
    del load["plan"][missing]
    (answer,) = ask(load)
    assert error_of(answer)[0] == "command"
    assert missing in error_of(answer)[1]


def test_a_plan_with_an_unknown_field_is_refused(load):
    load["plan"]["speed"] = "fast"
    (answer,) = ask(load)
    assert "speed" in error_of(answer)[1]


def test_an_incomplete_command_is_refused(load):
    _, answer = ask(load, {"command": "embed"})
    assert error_of(answer) == ("command", "embed lacks 'tokens'")


def test_unknown_batching_rules_are_refused(load, tmp_path):
    tokens = tmp_path / "tokens.npz"
    TokenSequences.from_lists([[5]], 0).save(tokens)
    _, answer = ask(
        load,
        {"command": "embed", "tokens": str(tokens), "output": "x", "batching": {"size": 3}},
    )
    assert error_of(answer) == ("command", "unknown batching rules ['size']")


def test_an_unknown_workload_is_refused(load):
    _, answer = ask(load, {"command": "time", "kind": "mixed", "passes": 1, "output": "x"})
    assert "'mixed'" in error_of(answer)[1]


def test_a_caller_who_disappears_is_noticed_while_nothing_is_asked():
    lost = threading.Event()
    channel = Channel(io.BytesIO(b""), io.BytesIO(), lost.set)
    threading.Thread(target=lambda: list(channel.commands()), daemon=True).start()
    assert lost.wait(10)


def test_a_caller_who_reads_no_more_is_noticed(load):
    class Closed(io.BytesIO):
        def flush(self) -> None:
            raise BrokenPipeError

    lost = threading.Event()
    Channel(io.BytesIO(), Closed(), lost.set).result({})
    assert lost.is_set()


def test_progress_is_said_seldom_but_the_end_always():
    answers = io.BytesIO()
    channel = Channel(io.BytesIO(), answers, lambda: None)
    for done in range(1, 1001):
        channel.progress(done, 1000, every_s=3600.0)
    said = [json.loads(line)["progress"]["done"] for line in answers.getvalue().splitlines()]
    assert said == [1, 1000]


def test_the_runner_needs_no_file_of_ours(load, tmp_path):
    """Adapters are loaded by path, from anywhere."""
    moved = tmp_path / "elsewhere" / "any_name.py"
    moved.parent.mkdir()
    Path(load["plan"]["adapter"]).rename(moved)
    load["plan"]["adapter"] = str(moved)
    (answer,) = ask(load)
    assert "result" in answer


# ---------------------------------------------------------------- several batches at once

MANY = ADAPTER.replace("np.ones((len(inputs", "self.rows((len(inputs").replace(
    "    def inspect",
    """    def rows(self, shape, kind):
        return np.ones(shape, kind)
    def run_many(self, batches):
        with open(CALLS, "a") as stream:
            stream.write(f"{len(batches)}\\n")
        return [inputs["input_ids"][:, :2].astype(np.float32) for inputs in batches]BROKEN
    def inspect""",
)


@pytest.fixture
def load_many(load, tmp_path):
    """Load an adapter that takes several batches; returns how many each call had."""

    def write(broken: str = "") -> tuple[dict, Path]:
        calls = tmp_path / "calls"
        text = MANY.replace("CALLS", repr(str(calls))).replace("BROKEN", broken)
        (tmp_path / "adapter.py").write_text(text)
        load["plan"]["max_batch_tokens"] = 16
        return load, calls

    return write


def embed_thirty(tmp_path) -> dict:
    texts = [[5 + i, 60 + i] for i in range(30)]
    TokenSequences.from_lists(texts, 0).save(tmp_path / "tokens.npz")
    return {"tokens": str(tmp_path / "tokens.npz"), "output": str(tmp_path / "out.npy")}


def test_texts_are_embedded_through_run_many_in_bounded_groups(load_many, tmp_path):
    load, calls = load_many()
    files = embed_thirty(tmp_path)
    *_, answer = ask(load, {"command": "embed", **files})
    assert answer == {"result": {"num_texts": 30}}
    expected = np.array([[5 + i, 60 + i] for i in range(30)], np.float32)
    np.testing.assert_array_equal(np.load(files["output"]), expected)  # rows in place
    assert sum(map(int, calls.read_text().split())) == 15
    assert max(map(int, calls.read_text().split())) <= 16


@pytest.mark.parametrize(
    ("kind", "samples", "groups"), [("batched", 2, [15, 15]), ("single", 60, [])]
)
def test_only_batched_workloads_are_timed_at_once(kind, samples, groups, load_many, tmp_path):
    load, calls = load_many()
    files = embed_thirty(tmp_path)
    *_, answer = ask(load, {"command": "time", "kind": kind, "passes": 2, **files})
    assert answer == {"result": {"num_samples": samples}}
    made = calls.read_text().split() if calls.exists() else []
    assert [int(n) for n in made] == groups
    assert (np.load(files["output"]) > 0).all()


@pytest.mark.parametrize(
    ("broken", "said"), [("[:-1]", "results of 15 batches"), ("[::-1] + 0", "TypeError")]
)
def test_run_many_is_held_to_its_promise(broken, said, load_many, tmp_path):
    load, _ = load_many(broken)
    *_, answer = ask(load, {"command": "embed", **embed_thirty(tmp_path)})
    assert said in error_of(answer)[1]


def test_a_wrong_shape_from_run_many_is_refused(load_many, tmp_path):
    load, _ = load_many(" and [np.ones((2, 3), np.float32)] * len(batches)")
    *_, answer = ask(load, {"command": "embed", **embed_thirty(tmp_path)})
    assert error_of(answer)[0] == "shape"
