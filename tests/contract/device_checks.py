"""What every device promises, each as a function that raises AssertionError when it is broken.

    @pytest.mark.parametrize("check", DEVICE_CHECKS)
    def test_contract(check, device, tmp_path):
        DEVICE_CHECKS[check](device, make_kit(tmp_path))

What runs there is a table in numpy, so a device needs Python and numpy only. All checks together
start five runners. `test_device_checks_catch.py` proves that each fails on a device that breaks
the promise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from targets.contract import (
    ALONE,
    Device,
    FloatArray,
    Hardware,
    Runner,
    RunPlan,
    TokenSequences,
    Workload,
)
from targets.errors import DeviceError, ExporterError, RunnerCrashedError, StorageError

ADAPTER = Path(__file__).with_name("device_adapter.py")
DEADLY_ID = 1000
"""The adapter's: the runner dies of this token."""
NOBODY_HAS = "a-distribution-that-nobody-has"
PAD_ID, VOCABULARY, DIM = 0, 1024, 6


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceKit:
    """Something to run: a plan, texts of mixed lengths, and what must come back."""

    plan: RunPlan
    tokens: TokenSequences
    expected: FloatArray


def make_kit(folder: Path) -> DeviceKit:
    """Write the table into an existing folder."""
    rng = np.random.default_rng(11)
    table = rng.normal(size=(VOCABULARY, DIM)).astype(np.float32)
    np.save(folder / "table.npy", table)
    texts = [rng.integers(1, DEADLY_ID, length) for length in (3, 17, 2, 30, 9, 16, 5)]
    plan = RunPlan(
        adapter=ADAPTER,
        model=folder / "table.npy",
        inputs=("input_ids", "attention_mask"),
        output="sentence_embedding",
        pad_token_id=PAD_ID,
        embedding_dim=DIM,
        max_seq_length=32,
        options={"table": "whole"},
    )
    return DeviceKit(
        plan=plan,
        tokens=TokenSequences.from_lists(texts, PAD_ID),
        expected=np.stack([table[ids].mean(axis=0) for ids in texts]),
    )


# ------------------------------------------------------------------------- what it is


def check_identity(device: Device, kit: DeviceKit) -> None:
    """It keeps the protocol and says the same of itself whenever it is asked."""
    assert isinstance(device, Device)
    assert isinstance(device.measures_latency, bool)
    name, first = device.name, device.hardware()
    assert name, "a device without a name"
    assert isinstance(first, Hardware)
    assert first.architecture, "hardware without an architecture"
    assert isinstance(first.features, frozenset)
    assert first.num_cores >= 1
    assert first.memory_bytes > 0
    assert device.hardware() == first, "asked twice, another hardware"
    assert device.name == name


def check_distributions(device: Device, kit: DeviceKit) -> None:
    """What runners can import is told with its version; what is not there is not named."""
    found = device.distributions(("numpy", NOBODY_HAS))
    assert NOBODY_HAS not in found, f"it says {found[NOBODY_HAS]!r} of what is not there"
    assert set(found) == {"numpy"}, "numpy is not named, and no runner works without it"
    assert found["numpy"][:1].isdigit(), f"{found['numpy']!r} is no version"
    assert dict(device.distributions(())) == {}, "asked for nothing, it names something"


# -------------------------------------------------------------------- what runs there


def check_runner(device: Device, kit: DeviceKit) -> None:
    """A runner embeds, knows itself, and is gone when it is closed."""
    runner = device.start(kit.plan, 1)
    try:
        _check_embeddings(runner, kit)
        _check_info(runner, kit, device)
        _check_clock(runner, device)
        _check_bad_request(runner, kit)
    finally:
        runner.close()
    runner.close()
    message = _failure(lambda: runner.embed(kit.tokens), ExporterError)
    assert message, "it embeds after it has been closed"


def _check_embeddings(runner: Runner, kit: DeviceKit) -> None:
    for rows in (runner.embed(kit.tokens), runner.embed(kit.tokens, ALONE)):
        assert rows.dtype == np.float32
        assert rows.shape == kit.expected.shape
        assert np.allclose(rows, kit.expected, atol=1e-5), "rows are not those of the texts"


def _check_info(runner: Runner, kit: DeviceKit, device: Device) -> None:
    info = runner.info()
    assert info.load_s > 0
    assert info.peak_rss_bytes >= info.rss_bytes > 0
    assert info.tool_versions["table"] == "1", "the adapter's versions are not told"
    numpy = device.distributions(("numpy",))["numpy"]
    assert info.tool_versions["numpy"] == numpy, "runners have another numpy than it says"
    assert info.options.items() >= kit.plan.options.items(), "effective options are not told"
    (row,) = runner.inspect(kit.tokens)
    assert (row.op_type, row.dtype, row.count) == ("Gather", "float32", 1)


def _check_clock(runner: Runner, device: Device) -> None:
    """Samples where time means something; elsewhere a refusal by name."""
    work = Workload(name="1x16", kind="shape", batch_size=1, sequence_length=16)
    if device.measures_latency:
        samples = runner.time(work, passes=3, warmup=1)
        assert samples.shape == (3,)
        assert (samples > 0).all(), "a pass took no time"
        return
    message = _failure(lambda: runner.time(work, passes=3), ExporterError)
    assert message, "it takes a time that means nothing"
    assert "latency" in message, f"the refusal does not say what is refused: {message}"


def _check_bad_request(runner: Runner, kit: DeviceKit) -> None:
    """What the runner refuses is an error by name, and it goes on."""
    nothing = kit.tokens.select([])
    assert _failure(lambda: runner.inspect(nothing), DeviceError), "it inspects without a text"
    assert np.allclose(runner.embed(kit.tokens), kit.expected, atol=1e-5)


def check_death(device: Device, kit: DeviceKit) -> None:
    """A runner that dies is a crash by name; its neighbour and its successor run."""
    deadly = TokenSequences.from_lists([[1, DEADLY_ID]], PAD_ID)
    neighbour, victim = device.start(kit.plan, 1), device.start(kit.plan, 1)
    try:
        message = _failure(lambda: victim.embed(deadly), RunnerCrashedError)
        assert message, "a runner died and nobody says so"
        assert device.name in message, f"the crash does not name the device: {message}"
        again = _failure(lambda: victim.embed(kit.tokens), DeviceError)
        assert again, "a dead runner embeds"
        assert np.allclose(neighbour.embed(kit.tokens), kit.expected, atol=1e-5)
    finally:
        victim.close()
        neighbour.close()
    successor = device.start(kit.plan, 1)
    successor.close()


def check_missing_model(device: Device, kit: DeviceKit) -> None:
    """An artifact that is not there is named; nothing is started for good."""
    absent = replace(kit.plan, model=kit.plan.model.with_name("absent.npy"))
    message = _failure(lambda: device.start(absent, 1).close(), (DeviceError, StorageError))
    assert message, "it starts without the artifact"
    assert "absent.npy" in message, f"the error does not name the file: {message}"


def _failure(
    action: Callable[[], object],
    kinds: type[ExporterError] | tuple[type[ExporterError], ...],
) -> str:
    """Return the message of the error that an action ends with, "" if with none."""
    try:
        action()
    except kinds as error:
        return str(error)
    except Exception as error:
        raise AssertionError(
            f"not an error of the tree: {type(error).__name__}: {error}"
        ) from error
    return ""


DEVICE_CHECKS: Mapping[str, Callable[[Device, DeviceKit], None]] = {
    "identity": check_identity,
    "distributions": check_distributions,
    "runner": check_runner,
    "death": check_death,
    "missing model": check_missing_model,
}
