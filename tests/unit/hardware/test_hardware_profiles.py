"""The table of CPUs: whole, consistent, and what its sources say."""

from __future__ import annotations

import hardware_facts as facts
import pytest

from targets.errors import ConfigError
from targets.hardware.cpu import SOURCES
from targets.hardware.microarchitectures import name_arm, name_x86
from targets.hardware.profiles import cpu_profile, cpu_profiles

ROWS = {profile.name: profile for profile in cpu_profiles()}
WANTED = facts.words("""
cortex-a53 cortex-a55 cortex-a72 cortex-a76 cortex-a78 cortex-a510 cortex-a710 cortex-a715
cortex-a720 cortex-x1 cortex-x2 cortex-x3 cortex-x4 neoverse-n1 neoverse-n2 neoverse-v1 neoverse-v2
apple-m1 apple-m2 apple-m3 apple-m4 haswell broadwell skylake-server cascade-lake ice-lake-server
sapphire-rapids emerald-rapids granite-rapids alder-lake sierra-forest zen2 zen3 zen4 zen5
""")
NEEDS = {
    "asimddp": {"asimdhp", "fphp", "asimd"},
    "i8mm": {"asimddp"},
    "bf16": {"asimddp"},
    "sve": {"asimdhp"},
    "sve2": {"sve", "i8mm"},
    "avx512_vnni": {"avx512f", "avx512bw", "avx512vl", "avx2"},
    "avx512_bf16": {"avx512_vnni"},
    "avx_vnni": {"avx2", "fma"},
    "amx_int8": {"amx_tile", "avx512_vnni"},
    "amx_bf16": {"amx_tile", "avx512_bf16"},
}
"""Feature → what every CPU with it has too."""


def test_the_cpus_that_are_asked_for_are_there():
    assert set(ROWS) >= WANTED


def test_names_and_aliases_are_unique_and_plain():
    names = [one for row in ROWS.values() for one in (row.name, *row.aliases)]
    assert len(names) == len(set(names))
    assert all(name == name.lower().replace("_", "-").replace(" ", "-") for name in names)
    assert len({row.microarchitecture for row in ROWS.values()}) == len(ROWS)


@pytest.mark.parametrize("name", ROWS)
class TestEveryRow:
    def test_has_sources(self, name):
        assert ROWS[name].sources
        assert set(ROWS[name].sources) <= set(SOURCES)
        assert len(ROWS[name].sources) > 1 or ROWS[name].note == "one source only"

    def test_uses_the_kernel_s_names(self, name):
        assert ROWS[name].features <= facts.KERNEL_NAMES

    def test_has_what_its_features_rest_on(self, name):
        features = ROWS[name].features
        for feature, needed in NEEDS.items():
            assert feature not in features or needed <= features, feature

    def test_belongs_to_one_architecture(self, name):
        row = ROWS[name]
        base = {"aarch64": "asimd", "x86_64": "sse4_2"}
        assert base[row.architecture] in row.features
        assert {one for one in base.values() if one in row.features} == {base[row.architecture]}

    def test_is_what_detection_calls_a_cpu_with_its_numbers(self, name):
        row = ROWS[name]
        assert row.numbers
        for number in row.numbers:
            first, _, second = number.partition("/")
            if row.architecture == "aarch64":
                found = name_arm(((int(first, 16), int(second, 16)),))
            else:
                model = int(second.split("-")[0])
                found = name_x86(row.vendor, int(first), model, row.features)
            assert found == row.microarchitecture

    def test_is_emulated_by_a_model_that_runs_all_of_it(self, name):
        row = ROWS[name]
        assert (row.qemu_model is not None) == ("qemu" in row.sources)
        if row.qemu_model is not None:
            assert row.qemu_model in facts.QEMU_10_0_2_MODELS
            assert not any(one.startswith(("avx512", "avx_", "amx")) for one in row.features)


@pytest.mark.parametrize(
    ("source", "rows"),
    [("archspec", facts.ARCHSPEC_0_2_7), ("llvm", facts.LLVM), ("qemu", facts.QEMU_10_0_2)],
)
def test_a_source_is_cited_where_it_speaks_and_agrees(source, rows):
    cited = {name for name, row in ROWS.items() if source in row.sources}
    assert cited == set(rows)
    for name, words in rows.items():
        ours, theirs = ROWS[name].features & facts.TELLING, set(words.split())
        if ours != theirs:
            assert source in ROWS[name].note, f"{name}: {ours ^ theirs} is not explained"


def test_differences_from_archspec_are_the_known_ones():
    different = {
        name: (ROWS[name].features & facts.TELLING) ^ set(words.split())
        for name, words in facts.ARCHSPEC_0_2_7.items()
    }
    assert {name: found for name, found in different.items() if found} == {
        "sapphire-rapids": {"avx_vnni", "avx512_fp16"},
        "ampereone": {"asimdfhm"},
    }


def test_numbers_are_linux_s():
    for name, number in facts.LINUX_6_12.items():
        assert number in ROWS[name].numbers, name


# ------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("cortex-a72", "cortex-a72"),
        ("Cortex_A72", "cortex-a72"),
        ("cortex a72", "cortex-a72"),
        ("graviton2", "neoverse-n1"),
        ("graviton3", "neoverse-v1"),
        ("graviton4", "neoverse-v2"),
        ("raspberry-pi-4", "cortex-a72"),
        ("raspberry_pi_5", "cortex-a76"),
        ("snapdragon-8-gen-2", "cortex-x3"),
        ("snapdragon-8-gen-3", "cortex-x4"),
        ("skylake_avx512", "skylake-server"),
        ("sapphirerapids", "sapphire-rapids"),
        ("m1", "apple-m1"),
        ("EPYC-Genoa", "zen4"),
    ],
)
def test_a_cpu_is_found_by_name_alias_and_detection_s_name(given, name):
    assert cpu_profile(given).name == name


@pytest.mark.parametrize(
    ("given", "first"),
    [("cortex-a71", "cortex-a710"), ("gravitn3", "graviton3"), ("haswel", "haswell"), ("", "")],
)
def test_an_unknown_cpu_lists_the_nearest_first(given, first):
    with pytest.raises(ConfigError) as caught:
        cpu_profile(given)
    assert repr(given) in caught.value.what
    assert f"nearest first: {first}" in caught.value.why
    assert caught.value.hint


def test_hardware_is_that_of_detection():
    row = cpu_profile("neoverse-v1")
    hardware = row.hardware(8, 1 << 34)
    assert (hardware.architecture, hardware.vendor) == ("aarch64", "ARM")
    assert (hardware.model_name, hardware.microarchitecture) == ("neoverse-v1", "neoverse_v1")
    assert hardware.features == row.features
    assert (hardware.num_cores, hardware.memory_bytes) == (8, 1 << 34)


def test_fingerprints_are_stable_and_differ():
    """The value is part of cache keys and of reports: a change of it must be meant."""
    prints = {row.hardware(1, 1 << 30).fingerprint for row in ROWS.values()}
    assert len(prints) == len(ROWS)
    assert cpu_profile("graviton2").hardware(1, 1).fingerprint == "41e17ee51d40c28c"
    alias, row = cpu_profile("graviton2"), cpu_profile("neoverse-n1")
    assert alias.hardware(2, 5).fingerprint == row.hardware(2, 9).fingerprint
    assert row.hardware(1, 1).fingerprint != row.hardware(2, 1).fingerprint


def test_a_model_number_that_the_live_features_refute_is_not_believed():
    rocket_lake = frozenset(ROWS["rocketlake"].features) if "rocketlake" in ROWS else frozenset()
    level_4 = rocket_lake | {
        *("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx2", "bmi1", "bmi2", "fma"),
        *("f16c", "abm", "movbe", "xsave", "avx", "sse4_2", "sse4_1", "ssse3", "popcnt", "cx16"),
        "lahf_lm",
    }
    assert name_x86("GenuineIntel", 6, 167, level_4) == "rocketlake"
    found = name_x86("GenuineIntel", 6, 167, level_4 | {"amx_tile", "amx_int8", "amx_bf16"})
    assert found == "x86_64_v4"
    assert name_x86("GenuineIntel", 6, 143, level_4 | {"amx_tile"}) == "sapphirerapids"
