"""What a few texts show of activations is what the float graph computes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from contract.tiny_graph import make_tokens, write_tiny_graph
from contract.tiny_plans import calibrated_table

from exporter.optimize.activation_sample import ActivationSample, Changes
from exporter.optimize.calibration_batches import Batch
from exporter.optimize.calibration_graph import open_activations
from targets.contract import OnnxArtifact, TokenSequences
from targets.quantization.calibrators import Range
from targets.quantization.correction import rounding_corrected
from targets.quantization.layers import read_layers
from targets.quantization.plan import LayerPlan
from targets.quantization.prepare import Method, Preparation

TOKENS = make_tokens(20)


@pytest.fixture(scope="module")
def graph(tmp_path_factory) -> OnnxArtifact:
    return write_tiny_graph(tmp_path_factory.mktemp("graph")).artifact


@pytest.fixture(scope="module")
def sample(graph) -> ActivationSample:
    return ActivationSample(graph, TOKENS, num_threads=1)


@pytest.fixture(scope="module")
def values(graph) -> dict[str, list[np.ndarray]]:
    """Activations of every text, run alone; shape [tokens, channels]."""
    session = open_activations(graph, 1)
    found: dict[str, list[np.ndarray]] = {}
    for index in range(len(TOKENS)):
        ids = np.asarray(TOKENS[index], np.int64)[None]
        batch = Batch(ids=ids, is_token=np.ones_like(ids, np.bool_))
        for one, value in zip(session.activations, session.run(batch), strict=True):
            found.setdefault(one.name, []).append(value.reshape(-1, one.num_channels))
    return found


@pytest.fixture(scope="module")
def plans(graph) -> tuple[LayerPlan, ...]:
    model = onnx.load(graph.path)
    table = calibrated_table(graph, TOKENS)
    return Preparation(model, read_layers(model), table).plans(Method())


def test_first_tokens_and_centred_values_are_those_of_the_texts(sample, values):
    name = next(iter(values))
    middle = np.linspace(-1, 1, values[name][0].shape[1]).astype(np.float32)
    found = sample.of_norms({name: middle})[name]
    first = np.mean([rows[0] for rows in values[name]], axis=0)
    np.testing.assert_allclose(found.first, first, atol=1e-5)
    other = np.mean([rows[-1] for rows in values[name]], axis=0)
    assert np.abs(found.first - other).max() > 0.01
    centred = np.concatenate(values[name]) - middle
    assert found.centred.count == centred.size
    assert found.centred.minimum == pytest.approx(float(centred.min()), abs=1e-5)
    assert found.centred.channel_mean is None


def mean_error(plan: LayerPlan, rows: np.ndarray) -> np.ndarray:
    """Straight from the definition of QuantizeLinear, in float64."""
    scale = (plan.activation.high - plan.activation.low) / 255
    zero_point = np.rint(-plan.activation.low / scale)
    smoothed = rows / plan.divisor
    integers = np.clip(np.rint(smoothed / scale) + zero_point, 0, 255)
    return ((integers - zero_point) * scale - smoothed).mean(axis=0)


def test_the_mean_error_of_rounding_is_that_of_the_values(sample, plans, values):
    found = sample.rounding_errors(plans, Changes())
    assert set(found) == {plan.layer.activation for plan in plans}
    for plan in plans:
        rows = np.concatenate(values[plan.layer.activation]).astype(np.float64)
        np.testing.assert_allclose(found[plan.layer.activation], mean_error(plan, rows), atol=2e-4)


def test_changes_of_the_graph_are_followed(sample, plans, values):
    plan = plans[0]
    name, width = plan.layer.activation, len(plan.divisor)
    copies, shift = np.ones(width, np.int64), np.linspace(0, 9, width + 1, dtype=np.float32)
    copies[2] = 2
    wide = replace(plan, divisor=np.repeat(plan.divisor, copies))
    changes = Changes(copies={name: copies}, shifts={name: shift})
    found = sample.rounding_errors([wide], changes)[name]
    rows = np.repeat(np.concatenate(values[name]), copies, axis=1) - shift
    np.testing.assert_allclose(found, mean_error(wide, rows), atol=2e-4)
    unlike = sample.rounding_errors([plan], Changes())[name]
    assert np.abs(found[-5:] - unlike[-5:]).max() > 0.1


def test_a_corrected_bias_keeps_the_mean_of_the_output(sample, plans, values):
    """With a range so wide that most values are rounded to zero, a lot is to be corrected."""
    plan = replace(plans[-1], activation=Range(low=-8.0, high=24.0))
    rows = np.concatenate(values[plan.layer.activation]).astype(np.float64)
    (error,) = sample.rounding_errors([plan], Changes()).values()
    scale = 32 / 255
    zero_point = np.rint(8 / scale)
    integers = np.clip(np.rint(rows / plan.divisor / scale) + zero_point, 0, 255)
    rounded = (integers - zero_point) * scale
    turned = plan.weight_integers.T if plan.layer.output_axis else plan.weight_integers
    weight = turned * plan.weight_scale[:, None].astype(np.float64)
    wanted = (rows / plan.divisor @ weight.T + plan.bias).mean(axis=0)
    before = (rounded @ weight.T + plan.bias).mean(axis=0) - wanted
    after = (rounded @ weight.T + rounding_corrected(plan, error).bias).mean(axis=0) - wanted
    assert np.abs(after).max() < 0.02 * np.abs(before).max()


def test_a_plan_without_a_bias_or_integers_is_left_as_it_is(plans):
    error = np.ones(len(plans[0].divisor))
    for bare in (replace(plans[0], bias=None), replace(plans[0], weight_integers=None)):
        assert rounding_corrected(bare, error) is bare
    assert rounding_corrected(plans[0], error) is not plans[0]


def test_long_texts_are_taken_in_small_number(graph, monkeypatch):
    import exporter.optimize.activation_sample as module

    seen: list[int] = []
    real = module.spread_by_length

    def counted(tokens: TokenSequences, number: int) -> TokenSequences:
        seen.append(number)
        return real(tokens, number)

    monkeypatch.setattr(module, "spread_by_length", counted)
    for length in (4, 60):
        texts = TokenSequences.from_lists([[5] * length] * 30, TOKENS.pad_token_id)
        ActivationSample(graph, texts, num_threads=1)
    assert seen == [512, 34]
