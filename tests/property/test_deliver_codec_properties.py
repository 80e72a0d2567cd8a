"""What `dump_json` wrote, `load_json` gives back, for every value without arrays."""

import collections.abc
import dataclasses
import math
import types
import typing
from pathlib import Path
from typing import Any, Literal, Union

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter import values
from exporter.deliver.codec import dump_json, load_json
from targets import contract
from targets.errors import NonFiniteError, StorageError

FINITE = st.floats(allow_nan=False, allow_infinity=False)
LEAVES: dict[object, st.SearchStrategy[Any]] = {
    str: st.text(max_size=12),
    int: st.integers(-(2**63), 2**63),
    float: FINITE,
    bool: st.booleans(),
    type(None): st.none(),
    Path: st.text(max_size=12).map(Path),
}


def anything(annotation: Any) -> st.SearchStrategy[Any]:
    """Draw values of a type; collections stay small so that whole records stay quick."""
    if annotation in LEAVES:
        return LEAVES[annotation]
    if annotation is contract.Check:
        # A check without a reason refuses some verdicts; its reason is drawn non-empty.
        return fields_of(annotation, reason=st.text(min_size=1, max_size=12))
    if dataclasses.is_dataclass(annotation):
        return fields_of(annotation)
    return generic(typing.get_origin(annotation), typing.get_args(annotation))


def fields_of(kind: Any, **given_fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(kind)
    drawn = {f.name: anything(hints[f.name]) for f in dataclasses.fields(kind)}
    return st.builds(kind, **(drawn | given_fields))


def generic(origin: Any, arguments: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (Union, types.UnionType):
        return st.one_of([anything(argument) for argument in arguments])
    if origin is collections.abc.Mapping:
        return st.dictionaries(*(anything(argument) for argument in arguments), max_size=2)
    if origin is frozenset:
        return st.frozensets(anything(arguments[0]), max_size=3)
    if arguments[-1] is Ellipsis:
        return st.lists(anything(arguments[0]), max_size=2).map(tuple)
    return st.tuples(*(anything(argument) for argument in arguments))


def is_array(annotation: Any) -> bool:
    return typing.get_origin(annotation) is np.ndarray or any(
        is_array(argument) for argument in typing.get_args(annotation)
    )


def has_arrays(kind: Any) -> bool:
    return any(
        is_array(hint) or any(has_arrays(a) for a in parts(hint) if dataclasses.is_dataclass(a))
        for hint in typing.get_type_hints(kind).values()
    )


def parts(annotation: Any) -> tuple[Any, ...]:
    return (annotation, *typing.get_args(annotation))


KINDS = [
    kind
    for kind in vars(values).values()
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and not has_arrays(kind)
]
SMALL = [k for k in KINDS if k not in (values.TargetResult, values.ExportRecord)]


def test_the_values_without_arrays_are_all_there():
    names = {kind.__name__ for kind in KINDS}
    assert {"ExportRecord", "TargetResult", "Fidelity", "Latency", "EncoderSpec"} <= names
    assert not {"EvaluationSet", "Judgements", "TimedSeries"} & names


@pytest.mark.parametrize("kind", SMALL, ids=lambda kind: kind.__name__)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_round_trip(kind, data):
    value = data.draw(anything(kind))
    again = load_json(kind, dump_json(value))
    assert again == value
    assert dump_json(again) == dump_json(value)


@pytest.mark.parametrize("kind", [values.TargetResult, values.ExportRecord])
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_round_trip_of_whole_records(kind, data):
    value = data.draw(anything(kind))
    assert load_json(kind, dump_json(value)) == value


@given(bad=st.sampled_from([math.nan, math.inf, -math.inf]), low=FINITE)
def test_non_finite_numbers_are_refused_by_name(bad, low):
    interval = contract.Interval(low=low, high=bad)
    with pytest.raises(NonFiniteError, match=r"value\.interval\.high"):
        dump_json(values.Estimate(value=1.0, interval=interval, num_samples=3))


@given(cut=st.integers(0, 80))
def test_a_truncated_value_is_refused(cut):
    data = dump_json(contract.Interval(low=0.25, high=0.75))
    with pytest.raises(StorageError):
        load_json(contract.Interval, data[: min(cut, len(data) - 1)])
