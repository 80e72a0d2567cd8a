"""A copy of the source model whose linear layers compute what their int8 forms will compute.

Activations are divided, rounded and clipped as the plan says; weights are integers times one scale
for each output channel. Rounding lets gradients through where nothing is clipped (the
straight-through estimator, Bengio et al. 2013), so weights and biases can be trained; ranges and
scales are the plan's and stay. Weights are kept in units of their own step: how far one is from the
next integer does not depend on the layer.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from targets.errors import CalibrationError
from targets.quantization.graph import module_path
from targets.quantization.integers import activation_parameters, weight_limit
from targets.quantization.plan import LayerPlan

if TYPE_CHECKING:
    from torch import Tensor, nn

KEPT_APART = 0.3
"""Weights start at most so far from the integer that was chosen for them: further out, rounding
that was compensated against its neighbours is lost with the first step."""
_FLOAT = np.dtype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Student:
    """What is trained.

    Args:
        module: takes and returns what the source's module does (`torch_module.build_module`).
        layers: node of a planned layer → its module, with parameters `weight` (in steps, shape
            [out, in]) and `bias` (shape [out]).
        plans: what it was built from.
    """

    module: nn.Module
    layers: Mapping[str, nn.Module]
    plans: tuple[LayerPlan, ...]

    def trained(self) -> tuple[LayerPlan, ...]:
        """Return the plans with the integers and biases as they are now."""
        return tuple(_as_plan(plan, self.layers[plan.layer.node]) for plan in self.plans)

    def keep_in_range(self) -> None:
        """Put weights that left what their integers can say back to its edge."""
        import torch

        with torch.no_grad():
            for plan in self.plans:
                limit = weight_limit(plan.reduce_range)
                self.layers[plan.layer.node].weight.clamp_(-limit, limit)

    def parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Yield everything that is trained by name, in a fixed order."""
        for plan in self.plans:
            for name, parameter in self.layers[plan.layer.node].named_parameters():
                yield f"{plan.layer.path}.{name}", parameter


def build_student(
    module: nn.Module,
    transformer: nn.Module,
    plans: Sequence[LayerPlan],
    weights: Mapping[str, NDArray[Any]],
    shifts: Mapping[str, NDArray[np.float32]] | None = None,
) -> Student:
    """Copy the source's module and put fake-quantized layers into the copy.

    Args:
        module: the source's, in evaluation mode; it is not changed.
        transformer: the Transformers model inside it, whose module paths the plans name.
        plans: with integers and scales, one for each layer.
        weights: stored tensors of the graph that the plans were made for.
        shifts: output of a LayerNorm in that graph → what is subtracted from it.

    Raises:
        CalibrationError: a layer cannot be trained; says which and why.
    """
    names = {id(one): name for name, one in module.named_modules()}
    inside = names[id(transformer)]
    copied = copy.deepcopy(module).requires_grad_(False)
    _require_trainable(plans)
    layers = {}
    for plan in plans:
        path = f"{inside}.{plan.layer.path}" if inside else plan.layer.path
        layer = _fake_quantized(plan, weights)
        _replace(copied, path, layer, plan)
        layers[plan.layer.node] = layer
    for output, shift in (shifts or {}).items():
        path = module_path(output)
        _move(copied, f"{inside}.{path}" if inside else path, shift)
    return Student(module=copied, layers=layers, plans=tuple(plans))


def _require_trainable(plans: Sequence[LayerPlan]) -> None:
    for plan in plans:
        if plan.weight_integers is None or plan.weight_scale is None:
            raise CalibrationError(
                f"{plan.layer.path} cannot be trained",
                why="its plan holds no integers to start from",
                hint="prepare the int8 forms with this version",
            )
    paths = [plan.layer.path for plan in plans]
    shared = next((path for path in paths if paths.count(path) > 1), None)
    if shared is not None:
        raise CalibrationError(
            f"{shared} cannot be trained",
            why="the graph runs this layer several times, each time with ranges of its own",
            hint="take the post-training recipes: models that share layers are not trained",
        )


def _replace(module: nn.Module, path: str, layer: nn.Module, plan: LayerPlan) -> None:
    from torch import nn

    parent, _, name = path.rpartition(".")
    try:
        owner = module.get_submodule(parent)
        found = owner.get_submodule(name)
    except AttributeError:
        found = None
    if not isinstance(found, nn.Linear):
        kind = "no module" if found is None else f"a {type(found).__name__}"
        raise CalibrationError(
            f"{plan.layer.path} cannot be trained",
            why=f"the PyTorch model has {kind} there, not a Linear",
            hint="take the post-training recipes for this model",
        )
    owner.add_module(name, layer)


def _move(module: nn.Module, path: str, shift: NDArray[np.float32]) -> None:
    """Subtract a shift from what a LayerNorm gives; what reads it has its bias from the graph."""
    import torch
    from torch import nn

    try:
        norm = module.get_submodule(path)
    except AttributeError:
        norm = None
    if not isinstance(norm, nn.LayerNorm) or norm.bias is None:
        raise CalibrationError(
            f"{path} cannot be trained",
            why="the graph moves its output, and the PyTorch model has no LayerNorm with a bias "
            "there",
            hint="take the post-training recipes for this model",
        )
    with torch.no_grad():
        norm.bias -= torch.from_numpy(shift)


def _fake_quantized(plan: LayerPlan, weights: Mapping[str, NDArray[Any]]) -> nn.Module:
    import torch
    from torch.nn.functional import linear

    stored, bias = _matrix(plan, weights[plan.layer.weight]), _bias(plan, weights)
    assert plan.weight_integers is not None and plan.weight_scale is not None  # required before
    integers = _matrix(plan, plan.weight_integers)
    divisor = np.ones(stored.shape[1], np.float32) if plan.divisor is None else plan.divisor
    steps = plan.weight_scale.astype(np.float32)[:, None]
    exact = stored * divisor / steps
    start = integers + np.clip(exact - integers, -KEPT_APART, KEPT_APART)
    parameters = activation_parameters(
        plan.activation, plan.integers, symmetric=plan.symmetric, dtype=_FLOAT
    )
    scale, zero_point = float(parameters.scale), int(parameters.zero_point)
    lowest = (-128 if plan.integers.startswith("S") else 0) - zero_point
    highest, rounding = lowest + 255, _straight_through()

    class FakeQuantizedLinear(torch.nn.Module):  # type: ignore[misc]  # torch is not followed
        """y = round(x / d / s) · round(w) · steps · s + bias, with s the activation's scale."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.from_numpy(start.astype(np.float32)))
            self.bias = torch.nn.Parameter(torch.from_numpy(bias))
            factor, back = 1.0 / (divisor * scale), steps * scale
            self.register_buffer("factor", torch.from_numpy(factor.astype(np.float32)))
            self.register_buffer("steps", torch.from_numpy(back.astype(np.float32)))

        def forward(self, values: Tensor) -> Tensor:
            rounded = rounding((values * self.factor).clamp(lowest, highest))
            return linear(rounded, rounding(self.weight) * self.steps, self.bias)

    return FakeQuantizedLinear()


def _straight_through() -> Callable[[Tensor], Tensor]:
    """Return rounding (ties to even, as in ONNX) whose gradient is that of the identity.

    torch's own fake quantization takes 30 ns a value on CPUs (2.13); this is a tenth of that.
    """
    import torch

    class Round(torch.autograd.Function):  # type: ignore[misc]  # torch is not followed
        @staticmethod
        def forward(_: object, values: Tensor) -> Tensor:
            return values.round()

        @staticmethod
        def backward(_: object, gradient: Tensor) -> Tensor:
            return gradient

    return Round.apply  # type: ignore[no-any-return]


def _matrix(plan: LayerPlan, values: NDArray[Any]) -> NDArray[np.float32]:
    """Return a stored matrix as [out, in], float32."""
    turned = values if plan.layer.output_axis == 0 else values.T
    return np.ascontiguousarray(turned, dtype=np.float32)


def _bias(plan: LayerPlan, weights: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    if plan.bias is not None:
        values = plan.bias
    elif plan.layer.bias is not None:
        values = weights[plan.layer.bias]
    else:
        assert plan.weight_scale is not None  # required before
        values = np.zeros_like(plan.weight_scale)
    return np.array(values, np.float32).reshape(-1)


def _as_plan(plan: LayerPlan, layer: nn.Module) -> LayerPlan:
    limit = weight_limit(plan.reduce_range)
    weight = layer.weight.detach().numpy()
    integers = np.clip(np.rint(weight), -limit, limit).astype(np.int8)
    stored = integers if plan.layer.output_axis == 0 else integers.T
    return replace(
        plan,
        weight_integers=np.ascontiguousarray(stored),
        bias=layer.bias.detach().numpy().copy(),
    )
