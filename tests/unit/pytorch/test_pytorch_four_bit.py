"""Four-bit layers that bitsandbytes would pack for AVX512-BF16 and fail. The layers are stand-ins:
whether they are packed depends on the CPU."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from targets.pytorch import loading


def layer(num_outputs: int, num_inputs: int, *, packs: bool = True) -> SimpleNamespace:
    state = SimpleNamespace(blocksize=64)
    return SimpleNamespace(
        support_avx512bf16_for_cpu=packs,
        out_features=num_outputs,
        in_features=num_inputs,
        weight=SimpleNamespace(quant_state=state),
    )


@pytest.mark.parametrize(
    ("shape", "packed"),
    [
        ((384, 1536), True),
        ((32, 64), True),
        ((32, 32), False),
        ((48, 64), False),
        ((32, 96), False),
    ],
)
def test_only_shapes_that_its_kernel_takes_are_packed(shape, packed):
    one, plain = layer(*shape), layer(*shape, packs=False)
    loading._keep_plain_where_packing_fails(
        SimpleNamespace(modules=lambda: [one, plain, SimpleNamespace()])
    )
    assert one.support_avx512bf16_for_cpu is packed
    assert plain.support_avx512bf16_for_cpu is False
