"""NVIDIA GPUs by name and by compute capability."""

from __future__ import annotations

import pytest

from targets.errors import ConfigError
from targets.hardware.gpus import GPU_SOURCES, gpu_profile, gpu_profiles

ROWS = {row.compute_capability: row for row in gpu_profiles()}

PTXAS_13_5 = {
    "7.5": "float16 int8 int4",
    "8.0": "tf32 bfloat16 float16 int8 int4",
    "8.6": "tf32 bfloat16 float16 int8 int4",
    "8.7": "tf32 bfloat16 float16 int8 int4",
    "8.9": "tf32 bfloat16 float16 fp8 int8 int4",
    "9.0": "tf32 bfloat16 float16 fp8 int8",
    "10.0": "tf32 bfloat16 float16 fp8 fp4 int8",
    "10.3": "tf32 bfloat16 float16 fp8 fp4 int8",
    "11.0": "tf32 bfloat16 float16 fp8 fp4 int8",
    "12.0": "tf32 bfloat16 float16 fp8 fp4 int8",
    "12.1": "tf32 bfloat16 float16 fp8 fp4 int8",
}
"""What ptxas 13.5.37 assembled; int4 where it takes no more code than int8."""


def test_rows_are_whole():
    assert list(ROWS) == list(PTXAS_13_5)
    names = [name for row in ROWS.values() for name in row.names]
    assert len(names) == len(set(names))
    for row in ROWS.values():
        assert row.names
        assert set(row.sources) <= set(GPU_SOURCES)
        assert {"cuda-gpus", "ptxas"} <= set(row.sources)
        assert row.tensorrt_rtx == ("tensorrt-rtx" in row.sources)
        assert {f"tensorrt-{major}" for major in row.tensorrt} <= set(row.sources)


def test_formats_are_those_that_the_assembler_takes():
    assert {key: " ".join(row.tensor_formats) for key, row in ROWS.items()} == PTXAS_13_5


def test_tensorrt_rtx_compiles_for_workstations_only():
    assert [row.sm for row in ROWS.values() if row.tensorrt_rtx] == [
        *("sm_75", "sm_80", "sm_86", "sm_89", "sm_120", "sm_121")
    ]


@pytest.mark.parametrize(
    ("given", "sm"),
    [
        ("H100", "sm_90"),
        ("h200", "sm_90"),
        ("9.0", "sm_90"),
        ("sm_90", "sm_90"),
        ("sm_90a", "sm_90"),
        ("SM_120f", "sm_120"),
        ("Tesla T4", "sm_75"),
        ("NVIDIA A100-SXM4-80GB", "sm_80"),
        ("NVIDIA A10", "sm_86"),
        ("NVIDIA GeForce RTX 3080 Ti", "sm_86"),
        ("NVIDIA GeForce RTX 4090", "sm_89"),
        ("NVIDIA L40S", "sm_89"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "sm_120"),
        ("rtx-5090", "sm_120"),
        ("orin", "sm_87"),
        ("GB10", "sm_121"),
        ("B300", "sm_103"),
    ],
)
def test_a_gpu_is_found(given, sm):
    assert gpu_profile(given).sm == sm


def test_every_name_leads_to_its_own_row():
    for row in ROWS.values():
        for name in (*row.names, row.sm, row.compute_capability):
            assert gpu_profile(name) is row


@pytest.mark.parametrize(
    ("given", "near"),
    [("H1000", "H100"), ("sm_91", "sm_90"), ("V100", "A100"), ("RTX 4O90", "RTX 4090"), ("", "")],
)
def test_an_unknown_gpu_lists_the_nearest_first(given, near):
    with pytest.raises(ConfigError) as caught:
        gpu_profile(given)
    assert repr(given) in caught.value.what
    assert near in caught.value.why
    assert caught.value.hint
