"""When the policy calls for training: only where it can help and nobody asked before."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from exporter.config import PolicySettings, Settings
from exporter.steps.training import calls_for_training
from targets.contract import Hardware
from targets.openvino.recipes import recipes_for


def cpu(*features: str) -> Hardware:
    return Hardware(
        architecture="x86_64",
        vendor="v",
        model_name="m",
        microarchitecture="",
        features=frozenset(features),
        num_cores=2,
        memory_bytes=1,
    )


VNNI, AVX2 = cpu("avx2", "avx512_vnni"), cpu("avx2")
QAT = Settings(policy=PolicySettings(on_failure="qat"))


def asked(settings: Settings = QAT, *, chosen: str = "float32", hardware: Hardware = VNNI) -> bool:
    recipes = recipes_for(VNNI)
    static = next(one for one in recipes if one.quantizer == "qdq")
    quantization = SimpleNamespace(recipes=recipes, plans={static.scheme: "plans.npz"})
    contest = SimpleNamespace(
        work=SimpleNamespace(settings=settings),
        quantization=quantization,
        stand=SimpleNamespace(hardware=hardware),
    )
    won = next(one for one in recipes if one.name == chosen)
    return calls_for_training(contest, SimpleNamespace(chosen=SimpleNamespace(recipe=won)))


def test_it_does_where_no_int8_recipe_won():
    assert asked()


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": Settings()},
        {"settings": QAT.model_copy(update={"qat": True})},
        {"settings": QAT.model_copy(update={"precision": "int8-static"})},
        {"chosen": "int8-static"},
        {"hardware": AVX2},
    ],
    ids=["not in the policy", "already trained", "forced", "int8 won", "nothing accelerates it"],
)
def test_it_does_not_otherwise(changes):
    assert not asked(**changes)
