"""Why a precision or a recipe is fast on a CPU, or is not, in words.

Nothing here knows a target: the contract's recipes and specifications say enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from targets.contract import Hardware, Precision, Recipe
from targets.hardware.gpu_hardware import ARCHITECTURE as GPU
from targets.hardware.precisions import (
    BACKINGS,
    PLAIN,
    Backing,
    backing,
    backings,
    is_backed,
    unused,
)

WEIGHTS_ONLY: Mapping[Precision, str] = {
    "int4": "no instruction: weights take an eighth of float32's bandwidth and are unpacked "
    "before the product",
    "int8": "no instruction: weights take a quarter of float32's bandwidth and are unpacked "
    "before the product",
}
"""What quantized weights gain where activations stay float."""
_WEIGHT_QUANTIZERS = ("nncf_weight_only", "matmul_nbits", "torchao_weight_only", "bnb_nf4")
_NOTHING = "no instruction: computed in float32 with conversions around it"
_GPU_ONLY: Mapping[Precision, str] = {
    "float8": "no CPU multiplies it: NVIDIA GPUs do, from compute capability 8.9 on",
}
_UNASKED = "only tried when asked for"


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What a precision is computed with on one CPU by one runtime.

    Args:
        accelerated: an instruction made for it multiplies more of it at once than of float32.
        instruction: what is multiplied with; "" where no instruction does it.
        feature: the kernel's name of the feature that brings the instruction; "" for none.
        note: what the instruction does not say; "" for nothing.
    """

    precision: Precision
    accelerated: bool
    instruction: str
    feature: str
    note: str = ""

    @property
    def words(self) -> str:
        """One line: instruction and feature, or why there is none."""
        if not self.instruction:
            return self.note
        named = f"{self.instruction} ({self.feature})"
        return f"{named}; {self.note}" if self.note else named


def explain_precision(hardware: Hardware, precision: Precision, runtime: str = "") -> Explanation:
    """Say which instruction of this hardware a precision is computed with.

    Args:
        hardware: live features, or those of a profile.
        precision: what is asked about.
        runtime: `TargetSpec.runtime`; "" where none in particular is meant.
    """
    found = backing(hardware, precision, runtime)
    if found:
        return _explained(precision, found, accelerated=True)
    if precision == "int4":
        return _unexplained(precision, WEIGHTS_ONLY["int4"])
    if precision == "float32" and hardware.architecture == GPU:
        return _unexplained(precision, "the GPU's own float32 units, no tensor cores")
    plain = next((p for p in PLAIN.get(precision, ()) if p.feature in hardware.features), None)
    if plain and precision == "float32":
        return _explained(precision, plain, accelerated=False)
    if plain:
        note = "no dot product, so it may lose to float32"
        return _explained(precision, plain, accelerated=False, note=note)
    return _unexplained(precision, _why_not(hardware, precision, runtime))


def explain_recipe(recipe: Recipe, hardware: Hardware, runtime: str = "") -> str:
    """Say what the products of a recipe are computed with on this hardware, in one line.

    Layers that `recipe.overrides` names and everything but linear layers run in
    `recipe.float_precision`, which is named too where it differs and is not float32.
    """
    words = _products(recipe, hardware, runtime)
    if not is_backed(recipe, hardware):
        return f"{words}; {_UNASKED}"
    if recipe.float_precision in (recipe.precision, "float32"):
        return words
    rest = explain_precision(hardware, recipe.float_precision, runtime)
    return f"{words}; the rest in {recipe.float_precision} by {rest.words}"


def _products(recipe: Recipe, hardware: Hardware, runtime: str) -> str:
    required = next(
        (
            one
            for one in backings(recipe.precision)
            if one.feature in recipe.requires and one.feature in hardware.features
        ),
        None,
    )
    if required:
        return _explained(recipe.precision, required, accelerated=True).words
    if recipe.quantizer in _WEIGHT_QUANTIZERS and recipe.precision in WEIGHTS_ONLY:
        return WEIGHTS_ONLY[recipe.precision]
    return explain_precision(hardware, recipe.precision, runtime).words


def _why_not(hardware: Hardware, precision: Precision, runtime: str) -> str:
    reasons = (
        unused(one.feature, precision, runtime)
        for one in BACKINGS[precision]
        if one.feature in hardware.features
    )
    return next((one.why for one in reasons if one), _GPU_ONLY.get(precision, _NOTHING))


def _explained(
    precision: Precision, found: Backing, *, accelerated: bool, note: str = ""
) -> Explanation:
    return Explanation(
        precision=precision,
        accelerated=accelerated,
        instruction=found.instruction,
        feature=found.feature,
        note=note,
    )


def _unexplained(precision: Precision, note: str) -> Explanation:
    return Explanation(
        precision=precision, accelerated=False, instruction="", feature="", note=note
    )
