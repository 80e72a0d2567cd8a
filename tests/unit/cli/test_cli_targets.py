"""`exporter targets`: on a device, and on hardware that is only named."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from exporter.cli import target_output
from exporter.cli.app import run
from targets import registry
from targets.contract import Availability, Hardware, Recipe, TargetSpec
from targets.errors import DeviceError, ExitCode
from targets.hardware.profiles import cpu_profile, cpu_profiles
from targets.registry import TargetRow, load_target, open_device

SPEC = TargetSpec(
    name="toaster",
    vendor="Some vendor",
    runtime="Toast",
    precisions=("float32", "bfloat16", "int8", "int4"),
    max_opset=20,
    artifact_kind="bread",
    extra="toaster",
    architectures=("aarch64",),
)
RECIPES = (
    Recipe(name="float32", precision="float32", float_precision="float32", why="reference"),
    Recipe(
        name="int8",
        precision="int8",
        float_precision="float32",
        quantizer="qdq",
        requires=("asimddp", "i8mm"),
        why="words [in brackets] are no markup",
    ),
    Recipe(
        name="int4-weights",
        precision="int4",
        float_precision="float32",
        quantizer="matmul_nbits",
        why="small",
    ),
)


class Toaster:
    """A vendor's target: whatever is printed comes from the contract."""

    spec = SPEC

    def probe(self, device) -> Availability:
        return Availability(ok=False, missing=("no bread",), tool_versions={"toast": "1.0"})

    def candidates(self, graph, hardware: Hardware):
        return RECIPES

    def compile(self, request): ...
    def run_plan(self, artifact, graph, pad_token_id, num_threads): ...
    def ship(self, artifact): ...


class Board:
    """A device that is an ARM board."""

    name, measures_latency = "board", True

    def __init__(self, cpu: str = "graviton3") -> None:
        self._cpu = cpu

    def hardware(self) -> Hardware:
        if not self._cpu:
            raise DeviceError("the board does not answer")
        return cpu_profile(self._cpu).hardware(2, 1 << 30)


Shown = Callable[..., str]


@pytest.fixture
def shown(capsys, monkeypatch) -> Shown:
    """Run `exporter targets …` with the toaster as the only target."""
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.setattr(registry, "load_target", lambda name: Toaster())
    monkeypatch.setattr(registry, "target_names", lambda: ("toaster",))

    def show(*arguments: str, cpu: str = "graviton3", code: int = 0) -> str:
        monkeypatch.setattr(registry, "open_device", lambda name: Board(cpu))
        assert run(["targets", *arguments]) == code
        captured = capsys.readouterr()
        return captured.err if code else captured.out

    return show


def cells(text: str, first: str) -> list[str]:
    """Cells of the table row that begins with `first`."""
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines()]
    return next(row for row in rows if row and row[0] == first)


def test_all_targets_say_what_is_accelerated_here(shown):
    assert cells(shown(), "toaster") == [
        *("toaster", "Toast", "float32, bfloat16, int8, int4", "bfloat16, int8", "no bread")
    ]
    assert cells(shown(cpu="raspberry-pi-4"), "toaster")[3] == "float32 only"
    assert cells(shown(cpu="haswell"), "toaster")[3] == "not made for x86_64"


def test_a_device_that_does_not_answer_ends_no_list(shown):
    assert cells(shown(cpu=""), "toaster")[3] == "-"


def test_a_broken_target_stays_listed(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    row = TargetRow(name="broken", spec=None, availability=None, failure="no module [crumbs]")
    target_output.print_targets([row], Board().hardware())
    assert cells(capsys.readouterr().out, "broken") == [
        *("broken", "-", "", "-", "broken: no module [crumbs]")
    ]


def test_one_target_on_a_device_names_the_instructions(shown):
    text = shown("toaster")
    assert "device board: neoverse-v1 (neoverse_v1)" in text
    assert "not ready (no bread)" in text
    assert "toast 1.0" in text
    assert cells(text, "bfloat16")[1:] == ["yes", "ARM bfloat16 matrix product BFMMLA (bf16)"]
    assert cells(text, "int8")[1:] == ["yes", "ARM int8 matrix product SMMLA (i8mm)"]
    assert cells(text, "int4")[1] == "no"
    assert "no instruction" in cells(text, "int4")[2]


def test_named_hardware_needs_no_device(shown):
    text = shown("toaster", "--hardware", "cortex-a72")
    assert "implementer/part 0x41/0xd08" in text
    assert "raspberry-pi-4" in text
    assert "sources: linux" in text
    assert cells(text, "U8S8")[1] == "yes"
    assert cells(text, "S8S8")[1] == "no"
    assert cells(text, "int4-weights")[1].startswith("no instruction")
    assert "device board" not in text


def test_a_recipe_shows_what_backs_it_and_why(shown):
    rows = shown("toaster", "--hardware", "graviton2").split("recipe", 1)[1]
    assert cells(rows, "int8") == [
        *("int8", "ARM dot product SDOT (asimddp)", "words [in brackets] are no markup")
    ]
    rows = shown("toaster", "--hardware", "raspberry-pi-4").split("recipe", 1)[1]
    assert "only tried when asked for" in cells(rows, "int8")[1]


def test_hardware_that_a_target_is_not_made_for_gets_no_recipes(shown):
    text = shown("toaster", "--hardware", "haswell")
    assert "no recipes: made for aarch64, not x86_64" in text
    assert "reference" not in text


def test_all_targets_on_named_hardware(shown):
    text = shown("--hardware", "apple-m1")
    assert cells(text, "toaster") == [
        *("toaster", "Toast", "float32, bfloat16, int8, int4", "int8")
    ]


def test_the_list_has_every_name(shown):
    text = shown("--hardware", "list")
    for row in cpu_profiles():
        assert cells(text, row.name)
    assert "sm_103" in text


def test_a_gpu_is_described(shown):
    text = shown("--hardware", "NVIDIA L40S")
    assert "sm_89" in text
    assert "fp8" in text
    assert "TensorRT-RTX" in text
    assert "TensorRT-RTX" not in shown("--hardware", "H100")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--hardware", "cortex-a71"), "nearest first: cortex-a710"),
        (("toaster", "--hardware", "H100"), "has no recipes for 'H100'"),
        (("--hardware", "haswell", "--device", "local"), "exclude each other"),
    ],
)
def test_what_is_wrong_is_said(shown, arguments, words):
    assert words in shown(*arguments, code=ExitCode.USAGE)


def test_the_real_targets_are_printed_for_every_cpu(monkeypatch, capsys):
    """Nothing that a target offers lacks its explanation, whichever CPU it is asked about."""
    monkeypatch.setenv("COLUMNS", "400")
    for name in registry.target_names():
        target = registry.load_target(name)
        for profile in cpu_profiles():
            target_output.print_target_for(target, profile)
            text = capsys.readouterr().out
            hardware = target_output.nominal_hardware(profile)
            if hardware.architecture not in target.spec.architectures:
                assert "no recipes" in text
                continue
            for recipe in target.candidates(None, hardware):
                assert cells(text.split("backed by", 1)[1], recipe.name)[1]


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx"])
def test_what_is_prepared_for_a_gpu_is_explained_by_the_gpu(monkeypatch, capsys, name):
    monkeypatch.setenv("COLUMNS", "200")
    if load_target(name).probe(open_device("local")).ok:
        pytest.skip("an NVIDIA GPU and its runtime are here")
    assert run(["targets", name]) == ExitCode.PASS
    text = capsys.readouterr().out
    assert "prepared for sm_" in text
    assert "tensor core product int8" in text
    assert not any(word in text for word in ("AMX", "AVX", "VPDP", "U8S8"))


def test_a_target_for_cpus_is_explained_by_the_cpu(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    assert run(["targets", "openvino"]) == ExitCode.PASS
    text = capsys.readouterr().out
    assert "tensor core" not in text and "U8S8" in text
