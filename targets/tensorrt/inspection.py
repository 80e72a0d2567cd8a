"""What TensorRT made of a graph, from the list of layers at the end of a detailed build log.

That list needs no GPU. A layer names the ONNX nodes it stands for, so what became of each linear
layer is known, whatever was merged.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from targets.contract import ExecutedPrecision, Structure

_LIST = "Layers:"
_LAYER = re.compile(r"^Name: (?P<name>.*?), LayerType: (?P<kind>\w+), ")
_DATATYPE = re.compile(r"Datatype: (\w+)")
_NODE = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_DTYPES = {
    "Int8": "int8",
    "Half": "float16",
    "Float": "float32",
    "BFloat16": "bfloat16",
    "Int64": "int64",
    "Int32": "int32",
    "Bool": "bool",
}
_ATTENTION = "_mha"
_PROFILE = re.compile(r"_myl(\d+)_")
_PRODUCTS = ("runtime_fusion", "gemm")
LINEAR, GEMM, FUSED, REFORMAT = "linear", "gemm", "fused attention", "reformat"
_KERNEL = re.compile(r"^__myl_(?P<steps>(?:[A-Z][a-z]*)+?)(?:_myl\d|_\d|$)")
_STEP = re.compile(r"[A-Z][a-z]*")
_MOVING = frozenset({"Cast", "Conc", "Copy", "Move", "Repl", "Resh", "Slic", "Tran"})
"""Steps of a kernel that compute nothing: Myelin names a kernel by the first letters of each."""
Rows = tuple[tuple[str, str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer of an engine.

    Args:
        name: TensorRT's own.
        kind: TensorRT's own: "gemm", "kgen", …
        takes: type of its first input.
        gives: type of its first output.
        nodes: names of the ONNX nodes it stands for.
    """

    name: str
    kind: str
    takes: str
    gives: str
    nodes: frozenset[str]

    @property
    def is_reformat(self) -> bool:
        """Whether it only moves values, or writes them in another type or order."""
        kernel = _KERNEL.match(self.name)
        steps = _STEP.findall(kernel["steps"]) if kernel else []
        return self.kind.lower() == REFORMAT or (bool(steps) and _MOVING.issuperset(steps))

    @property
    def is_attention(self) -> bool:
        """Whether it is a whole attention in one kernel."""
        return _ATTENTION in self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What an engine must be made of, by the names of the graph's nodes.

    Args:
        linear: the linear layers.
        attention: the products inside attention, two for each.
        num_int8: how many of the linear layers were quantized.
        num_int8_attentions: how many of the attentions were.
    """

    linear: tuple[str, ...]
    attention: tuple[str, ...]
    num_int8: int
    num_int8_attentions: int = 0


def read_layers_list(log: Iterable[str]) -> tuple[Layer, ...]:
    """Read the layers from the lines of a detailed build log; none where it has no list."""
    lines = [line for message in log for line in message.splitlines()]
    starts = [number for number, line in enumerate(lines) if line.strip() == _LIST]
    return tuple(_layers(lines[starts[-1] + 1 :])) if starts else ()


def _layers(lines: Sequence[str]) -> Iterator[Layer]:
    for line in lines:
        found = _LAYER.match(line.strip())
        if found is None:
            return
        ends, _, rest = line.partition("Outputs:")
        takes, gives = _DATATYPE.search(ends), _DATATYPE.search(rest)
        yield Layer(
            name=found["name"],
            kind=found["kind"],
            takes=_dtype(takes),
            gives=_dtype(gives),
            nodes=frozenset(_NODE.findall(line)),
        )


def _dtype(found: re.Match[str] | None) -> str:
    return _DTYPES.get(found[1], found[1].lower()) if found else "unknown"


def structure_of(
    layers: Sequence[Layer],
    linear_nodes: Sequence[str],
    attention_nodes: Sequence[str],
    source: str,
) -> Structure:
    """Say in which precision the linear layers run, and whether attention is fused.

    Every optimization profile has layers of its own; where they differ, the profile with the
    fewest fused attentions and int8 products is told, and a warning says so.

    Args:
        layers: from `read_layers_list`.
        linear_nodes: names of the graph's linear layers (MatMul or Gemm).
        attention_nodes: names of the products inside attention, two for each.
        source: whose compiler told.

    Returns:
        One row for each kind of layer; "linear" counts the graph's linear layers, "gemm" the
        products that they were merged into, "reformat" kernels that compute nothing.
    """
    profiles = _by_profile(layers)
    told = [_rows(one, linear_nodes) for one in profiles]
    if not told:
        return Structure(rows=(), source=source, warnings=("the log lists no layers",))
    rows = min(told, key=lambda one: (_count(one, FUSED), _count(one, LINEAR, "int8")))
    warnings = [] if len(set(told)) == 1 else ["the optimization profiles differ"]
    fused, wanted = _count(rows, FUSED), len(attention_nodes) // 2
    if fused < wanted:
        warnings.append(f"{fused} of {wanted} attentions run as one kernel")
    if missing := _count(rows, LINEAR, "unknown"):
        warnings.append(f"{missing} linear layers are in no layer of the engine by name")
    return Structure(
        rows=tuple(ExecutedPrecision(op_type=k, dtype=d, count=c) for k, d, c in rows),
        source=source,
        fused_attentions=fused,
        warnings=tuple(warnings),
    )


def _by_profile(layers: Sequence[Layer]) -> list[list[Layer]]:
    found: dict[str, list[Layer]] = {}
    for layer in layers:
        number = _PROFILE.search(layer.name)
        found.setdefault(number[1] if number else "0", []).append(layer)
    return list(found.values())


def _rows(layers: Sequence[Layer], linear_nodes: Sequence[str]) -> Rows:
    by_node: dict[str, Layer] = {}
    for layer in sorted(layers, key=_is_product):  # products last: they win
        by_node |= dict.fromkeys(layer.nodes, layer)
    linear = Counter(by_node[n].takes if n in by_node else "unknown" for n in linear_nodes)
    merged = {by_node[n].name: by_node[n].takes for n in linear_nodes if n in by_node}
    fused = Counter(layer.takes for layer in layers if layer.is_attention)
    moves = Counter(layer.takes for layer in layers if layer.is_reformat)
    counted = (
        (LINEAR, linear),
        (GEMM, Counter(merged.values())),
        (FUSED, fused),
        (REFORMAT, moves),
    )
    return tuple((kind, dtype, n) for kind, found in counted for dtype, n in sorted(found.items()))


def _is_product(layer: Layer) -> int:
    """What follows a product names the product's node too; the product itself ranks highest."""
    return _PRODUCTS.index(layer.kind) + 1 if layer.kind in _PRODUCTS else 0


def _count(rows: Rows, kind: str, dtype: str = "") -> int:
    return sum(n for one, found, n in rows if one == kind and dtype in ("", found))
