"""What a CPU seems to be when it is held to an older instruction set."""

from __future__ import annotations

import pytest

from targets.contract import Hardware
from targets.hardware.caps import ALIASES, CAPS, cap_hardware, has_cap, vector_extensions
from targets.openvino.recipes import best_float, recipes_for

BASE = frozenset({"sse4_2", "avx", "avx2", "fma", "f16c", "vaes", "gfni"})
SKYLAKE = BASE | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
CASCADE_LAKE = SKYLAKE | {"avx512_vnni"}
COOPER_LAKE = CASCADE_LAKE | {"avx512_bf16"}
NEWER = {"avx_vnni", "avx512_fp16", "avx512_vbmi2", "avx512ifma", "avx512_vpopcntdq"}
SAPPHIRE_RAPIDS = COOPER_LAKE | NEWER | {"amx_tile", "amx_int8", "amx_bf16"}
GRANITE_RAPIDS = SAPPHIRE_RAPIDS | {"amx_fp16", "avx10_1"}
ALDER_LAKE = BASE | {"avx_vnni", "avx_ifma"}


def machine(features: frozenset[str]) -> Hardware:
    return Hardware(
        architecture="x86_64",
        vendor="GenuineIntel",
        model_name="Some Xeon",
        microarchitecture="sapphirerapids",
        features=features,
        num_cores=4,
        memory_bytes=1 << 30,
    )


@pytest.mark.parametrize(
    ("cap", "expected"),
    [
        ("avx2", BASE),
        ("avx2_vnni", BASE | {"avx_vnni"}),
        ("avx512_core", SKYLAKE),
        ("avx512_core_vnni", CASCADE_LAKE),
        ("avx512_core_bf16", COOPER_LAKE),
        (
            "avx512_core_amx",
            COOPER_LAKE | {"avx_vnni", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16"},
        ),
    ],
)
def test_newer_extensions_are_taken_away_and_the_rest_stays(cap, expected):
    whole = machine(GRANITE_RAPIDS)
    capped = cap_hardware(whole, CAPS[cap])
    assert capped.features == expected
    assert capped.model_name == f"Some Xeon, capped to {CAPS[cap].isa}"
    assert (capped.num_cores, capped.memory_bytes) == (4, 1 << 30)
    assert capped.fingerprint != whole.fingerprint


def test_every_cap_has_a_fingerprint_of_its_own():
    whole = machine(SAPPHIRE_RAPIDS)
    prints = {cap_hardware(whole, cap).fingerprint for cap in CAPS.values()}
    assert len(prints | {whole.fingerprint}) == len(CAPS) + 1


def test_a_cap_is_labelled_even_where_it_takes_nothing_away():
    skylake = machine(SKYLAKE)
    capped = cap_hardware(skylake, CAPS["avx512_core"])
    assert capped.features == skylake.features
    assert capped.fingerprint != skylake.fingerprint


@pytest.mark.parametrize(
    ("features", "possible"),
    [
        (SAPPHIRE_RAPIDS, list(CAPS)),
        (SAPPHIRE_RAPIDS - {"amx_tile"}, [one for one in CAPS if one != "avx512_core_amx"]),
        (SAPPHIRE_RAPIDS - {"avx512_fp16"}, list(CAPS)),
        (CASCADE_LAKE, ["avx2", "avx512_core", "avx512_core_vnni"]),
        (SKYLAKE - {"avx512dq"}, ["avx2"]),
        (ALDER_LAKE, ["avx2", "avx2_vnni"]),
        (frozenset({"sse4_2", "avx"}), []),
        (frozenset({"asimd", "asimddp", "i8mm", "bf16"}), []),
    ],
)
def test_a_cpu_takes_the_caps_that_it_has(features, possible):
    assert [name for name, cap in CAPS.items() if has_cap(machine(features), cap)] == possible


def test_aliases_lead_to_caps_and_shadow_none():
    assert set(ALIASES.values()) <= set(CAPS)
    assert not set(ALIASES) & set(CAPS)


def test_extensions_are_named():
    assert vector_extensions(machine(ALDER_LAKE)) == ("avx2", "avx_vnni")
    assert vector_extensions(machine(frozenset({"asimd"}))) == ()


@pytest.mark.parametrize(
    ("cap", "precision", "offered", "backed_by"),
    [
        ("avx2", "float32", {"float32", "int8"}, "no int8 dot product"),
        ("avx2_vnni", "float32", {"float32", "int8", "int8-dynamic"}, "AVX-VNNI"),
        ("avx512_core", "float32", {"float32", "int8"}, "no int8 dot product"),
        ("avx512_core_vnni", "float32", {"float32", "int8", "int8-dynamic"}, "AVX512-VNNI"),
        ("avx512_core_bf16", "float32", {"float32", "bfloat16", "int8-dynamic"}, "AVX512-VNNI"),
        ("avx512_core_amx", "bfloat16", {"float32", "bfloat16", "int8"}, "AMX"),
    ],
)
def test_recipes_are_those_of_the_older_cpu(cap, precision, offered, backed_by):
    capped = cap_hardware(machine(SAPPHIRE_RAPIDS), CAPS[cap])
    recipes = {recipe.name: recipe for recipe in recipes_for(capped)}
    assert best_float(capped) == precision
    assert offered <= recipes.keys()
    assert ("bfloat16" in recipes) == ("bfloat16" in offered)
    assert ("int8-dynamic" in recipes) == ("int8-dynamic" in offered)
    assert backed_by in recipes["int8"].why
