"""A strict stand-in for TensorRT's Python module, made of the facts in `api10.json`, `api11.json`.

It is an API contract: whatever the bindings do not have is an error here, as it is there. A name
that is not in the facts raises AttributeError, a call that no signature takes raises TypeError, a
value of another class than the signature names raises TypeError, and a Python subclass that
forgets its base's `__init__` is refused. It computes nothing: results are plausible objects of the
type that the signature promises, or what the test's own `answers` say.
"""

from __future__ import annotations

import ctypes
import enum
import inspect
import json
import re
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
VERSIONS = (10, 11)
Answers = Mapping[str, Any]
"""`Class.member` → what it returns: a value, or a function of the object and the arguments."""

_NUMBERS = {"typing.SupportsInt": "__index__", "typing.SupportsFloat": "__float__"}


class NotCarried(LookupError):  # noqa: N818
    """TensorRT has it, these facts do not: add it to `generate.CLASSES`."""


def facts_of(major: int) -> dict[str, Any]:
    """Read the facts of a major version."""
    return json.loads((HERE / f"api{major}.json").read_text(encoding="utf-8"))


def make_module(major: int, answers: Answers | None = None) -> StandIn:
    """Return a stand-in for `tensorrt` 10 or 11."""
    return StandIn(facts_of(major), answers or {})


class StandIn(types.ModuleType):
    """The module; `calls` lists every call that was taken, `Class.method` with its arguments."""

    def __init__(self, facts: dict[str, Any], answers: Answers) -> None:
        super().__init__("tensorrt")
        self.__version__ = facts["version"]
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self._facts = facts
        self._answers = dict(answers)
        self._enums = {name: _enum(name, values) for name, values in facts["enums"].items()}
        self._classes: dict[str, type] = {}
        for name in facts["classes"]:
            self._class(name)
        known = {f"{c}.{m}" for c, one in facts["classes"].items() for m in _members(one)}
        if unknown := set(answers) - known:
            raise AttributeError(f"answers for what TensorRT does not have: {sorted(unknown)}")

    def __getattr__(self, name: str) -> Any:
        for kind in ("_classes", "_enums"):
            if name in self.__dict__.get(kind, {}):
                return self.__dict__[kind][name]
        if name in self.__dict__.get("_facts", {"names": ()})["names"]:
            raise NotCarried(f"{name}: not in the facts that the tests carry")
        raise AttributeError(f"TensorRT {self.__version__} has no {name!r}")

    def called(self, name: str) -> list[dict[str, Any]]:
        """Return the arguments of every call of `Class.method`."""
        return [arguments for called, arguments in self.calls if called == name]

    def new(self, name: str) -> Any:
        """Make an object that only TensorRT makes."""
        if name == "IHostMemory":
            return self.host_memory(b"ftrt-stand-in")
        made = object.__new__(self._classes[name])
        object.__setattr__(made, "_state", {})
        return made

    def host_memory(self, data: bytes) -> Any:
        """Return memory with these bytes, readable through the buffer protocol."""
        # before Python 3.12 only C types have a buffer; a ctypes array adds no public name
        namespace = {"nbytes": len(data), "dtype": self._enums["DataType"].INT8, "__slots__": ()}
        return type("IHostMemory", (ctypes.c_ubyte * len(data),), namespace).from_buffer_copy(data)

    # ------------------------------------------------------------------------ how it is made

    def _class(self, name: str) -> type:
        if name in self._classes:
            return self._classes[name]
        facts = self._facts["classes"][name]
        bases = tuple(self._class(base) for base in facts["bases"]) or (_Bound,)
        body: dict[str, Any] = {
            "_stand_in": name,
            "_made_by_python": "__init__" in facts["methods"],
        }
        for method, signatures in facts["methods"].items():
            body[method] = self._method(name, method, signatures)
        for one, about in facts["properties"].items():
            body[one] = self._property(name, one, about)
        for owner, members in self._enums.items():
            if owner.startswith(f"{name}."):
                body[owner.split(".")[1]] = members
        if name == "Logger":
            body["Severity"] = self._enums["ILogger.Severity"]
        self._classes[name] = made = _Strict(name, bases, body)
        return made

    def _method(self, owner: str, name: str, signatures: list[str]) -> Callable[..., Any]:
        parsed = [_parse(line) for line in signatures]

        def method(this: Any, *args: Any, **kwargs: Any) -> Any:
            for signature, returns in parsed:
                arguments = self._bind(signature, args, kwargs)
                if arguments is not None:
                    return self._answer(this, owner, name, arguments, returns)
            given = [*map(_kind, args), *(f"{k}={_kind(v)}" for k, v in kwargs.items())]
            takes = "\n".join(signatures)
            raise TypeError(f"{owner}.{name} does not take ({', '.join(given)}):\n{takes}")

        return method

    def _bind(
        self, signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> dict[str, Any] | None:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            return None
        kinds = {name: one.annotation for name, one in signature.parameters.items()}
        fits = all(self._takes(kinds[name], value) for name, value in bound.arguments.items())
        return dict(bound.arguments) if fits else None

    def _takes(self, kind: str, value: Any) -> bool:
        if kind in self._enums or kind in self._classes:
            wanted = self._enums.get(kind) or self._classes[kind]
            return isinstance(value, wanted)
        if kind in _NUMBERS:
            return hasattr(value, _NUMBERS[kind])
        if kind in ("str", "bool", "int"):
            return isinstance(value, {"str": str, "bool": bool, "int": int}[kind])
        if kind == "Dims":
            return isinstance(value, list | tuple) and all(hasattr(v, "__index__") for v in value)
        if kind == "typing_extensions.Buffer":
            return _is_buffer(value)
        if found := re.fullmatch(r"collections\.abc\.Sequence\[(.+)\]", kind):
            return isinstance(value, list | tuple) and all(self._takes(found[1], v) for v in value)
        return kind == "object"

    def _answer(
        self, this: Any, owner: str, name: str, arguments: dict[str, Any], returns: str
    ) -> Any:
        key = f"{owner}.{name}"
        self.calls.append((key, arguments))
        if key in self._answers:
            answer = self._answers[key]
            return answer(this, **arguments) if callable(answer) else answer
        if name == "__init__":
            object.__setattr__(this, "_state", {})
            return None
        return self._plausible(returns)

    def _plausible(self, kind: str) -> Any:
        plain = {"None": None, "bool": True, "int": 0, "float": 0.0, "str": "", "list": []}
        if kind in plain:
            return plain[kind]
        if kind in self._enums:
            return next(iter(self._enums[kind]))
        if kind in self._classes:
            return self.new(kind)
        if kind.startswith(("list[", "tuple")) or kind == "Dims":
            return [] if kind.startswith("list[") else ()
        raise NotCarried(f"a result of type {kind!r}: let the test's answers give one")

    def _property(self, owner: str, name: str, about: dict[str, Any]) -> property:
        key = f"{owner}.{name}"

        def read(this: Any) -> Any:
            if key in self._answers:
                answer = self._answers[key]
                return answer(this) if callable(answer) else answer
            return this._state[name] if name in this._state else self._plausible(about["type"])

        def write(this: Any, value: Any) -> None:
            if not self._takes(about["writable"], value):
                raise TypeError(f"{key} takes {about['writable']}, not {_kind(value)}")
            self.calls.append((key, {"value": value}))
            this._state[name] = value

        return property(read, write if about["writable"] else None)


class _Strict(type):
    """Like pybind11's metaclass: an object whose base was not initialized is refused."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if not cls._made_by_python:
            raise TypeError(f"{cls.__name__}: No constructor defined!")
        made = super().__call__(*args, **kwargs)
        if not hasattr(made, "_state"):
            raise TypeError(f"{cls._stand_in}.__init__() must be called when overriding __init__")
        return made


class _Bound:
    """What every class has: names that it lacks can be neither read nor written."""

    _made_by_python = False

    def __setattr__(self, name: str, value: Any) -> None:
        of_python = type(self).__dict__.get("_stand_in") is None
        if not of_python and not isinstance(getattr(type(self), name, None), property):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        object.__setattr__(self, name, value)


def _enum(name: str, values: dict[str, int]) -> type[enum.Enum]:
    """Return an enum that counts as a number, as pybind11's do, but is no int."""
    return enum.Enum(name.split(".")[-1], values, type=_Number)


class _Number:
    """Gives an enum's members their number."""

    def __int__(self) -> int:
        return self.value

    __index__ = __int__


def _members(facts: dict[str, Any]) -> list[str]:
    return [*facts["methods"], *facts["properties"]]


def _parse(line: str) -> tuple[inspect.Signature, str]:
    """Read one of pybind11's signatures; `self` is left out."""
    inside, returns = line[line.index("(") + 1 :].rsplit(") -> ", 1)
    parameters = [_parameter(one.strip()) for one in _split(inside)[1:]]
    return inspect.Signature(parameters), returns.strip()


def _parameter(text: str) -> inspect.Parameter:
    name, _, kind = text.partition(": ")
    kind, has_default, default = kind.partition(" = ")
    unnamed = re.fullmatch(r"arg\d+", name)
    return inspect.Parameter(
        name,
        inspect.Parameter.POSITIONAL_ONLY if unnamed else inspect.Parameter.POSITIONAL_OR_KEYWORD,
        annotation=kind.strip(),
        default=default if has_default else inspect.Parameter.empty,
    )


def _split(text: str) -> list[str]:
    """Split at commas outside of brackets."""
    parts, depth, start = [], 0, 0
    for place, letter in enumerate(text):
        depth += (letter in "[({") - (letter in "])}")
        if letter == "," and not depth:
            parts.append(text[start:place])
            start = place + 1
    return [*parts, text[start:]]


def _is_buffer(value: Any) -> bool:
    try:
        memoryview(value)
    except TypeError:
        return False
    return True


def _kind(value: Any) -> str:
    return type(value).__name__
