"""TensorRT 10's calibration cache: one scale for each tensor, as text.

The first line names version and calibrator: `TRT-101601-EntropyCalibration2` is 10.16.1
(`major * 10000 + minor * 100 + patch`). Every further line is `tensor: xxxxxxxx`, the scale's
float32 as eight hexadecimal digits, largest byte first; the range is plus and minus 127 scales.
Names may hold colons: the last one ends the name.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx

from targets.contract import Calibrator
from targets.errors import CalibrationError
from targets.quantization.calibrators import choose_range
from targets.quantization.graph import GraphIndex, to_array
from targets.quantization.table import CalibrationTable

ALGORITHM = "EntropyCalibration2"
LARGEST_INTEGER = 127
_HEADER = re.compile(r"TRT-(\d+)-(\w+)")
_LINE = re.compile(r"(.+): ([0-9a-fA-F]{8})")
_HINT = "delete the file and calibrate again"


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationCache:
    """Scales of a graph's tensors.

    Args:
        scales: tensor → scale, positive and finite; float32 when written.
        version: of TensorRT, (major, minor, patch).
        algorithm: name of the calibrator.
    """

    scales: Mapping[str, float]
    version: tuple[int, int, int]
    algorithm: str = ALGORITHM

    def to_bytes(self) -> bytes:
        """Return the file's content.

        Raises:
            CalibrationError: a scale is not positive and finite in float32, or a name has a line
                break.
        """
        major, minor, patch = self.version
        lines = [f"TRT-{major * 10000 + minor * 100 + patch}-{self.algorithm}"]
        lines += [_line(name, scale) for name, scale in self.scales.items()]
        return ("\n".join(lines) + "\n").encode("utf-8")

    @classmethod
    def from_bytes(cls, data: bytes) -> CalibrationCache:
        """Read what TensorRT or `to_bytes` wrote.

        Raises:
            CalibrationError: names the line that is damaged.
        """
        try:
            first, *rest = data.decode("utf-8").split("\n")
        except UnicodeDecodeError as error:
            raise _damaged(1, "it is no text") from error
        found = _HEADER.fullmatch(first)
        if found is None:
            raise _damaged(1, f"{first[:60]!r} is no header such as TRT-101601-{ALGORITHM}")
        number = int(found[1])
        version = (number // 10000, number // 100 % 100, number % 100)
        return cls(scales=dict(_read(rest)), version=version, algorithm=found[2])


def stamped(data: bytes, version: tuple[int, int, int]) -> bytes:
    """Return a cache's content under the header of another version of TensorRT.

    Scales depend on the graph and the texts, not on who reads them.

    Raises:
        CalibrationError: names the line that is damaged.
    """
    cache = CalibrationCache.from_bytes(data)
    header = replace(cache, scales={}, version=version).to_bytes()
    return header + data.partition(b"\n")[2]


def cache_of_table(
    table: CalibrationTable,
    version: tuple[int, int, int],
    method: Calibrator = "entropy",
    tensors: Iterable[str] | None = None,
) -> CalibrationCache:
    """Write down what our own calibration says of the float graph's tensors.

    Args:
        table: statistics of the float graph.
        version: of the TensorRT that is to read it.
        method: how a range is chosen; "entropy" is what the calibrator of this name does.
        tensors: None: all of the table.

    Raises:
        CalibrationError: a tensor is not in the table.
    """
    wanted = list(table.tensors if tensors is None else tensors)
    if missing := [name for name in wanted if name not in table.tensors]:
        raise CalibrationError(
            f"the calibration table has no {missing[0]!r}", hint="run the calibration again"
        )
    scales = {
        name: choose_range(table.tensors[name], method, symmetric=True).high / LARGEST_INTEGER
        for name in wanted
    }
    return CalibrationCache(scales=scales, version=version)


def cache_of_graph(model: onnx.ModelProto, version: tuple[int, int, int]) -> CalibrationCache:
    """Write down the scales of a Q/DQ graph's activations, by the names of their float tensors."""
    index = GraphIndex(model.graph)
    scales = {
        str(node.input[0]): float(np.float32(to_array(index.tensors[node.input[1]])))
        for node in model.graph.node
        if node.op_type == "QuantizeLinear" and not index.is_constant(node.input[0])
    }
    return CalibrationCache(scales=scales, version=version)


def different_scales(
    ours: CalibrationCache, theirs: CalibrationCache, tolerance: float = 0.01
) -> dict[str, tuple[float | None, float | None]]:
    """Compare two caches line by line; tensors of one alone count as different.

    Args:
        ours: one cache.
        theirs: the other.
        tolerance: largest difference, relative to the larger scale.

    Returns:
        Tensor → both scales, None where a cache lacks it.
    """
    pairs = {
        name: (ours.scales.get(name), theirs.scales.get(name))
        for name in [*ours.scales, *(one for one in theirs.scales if one not in ours.scales)]
    }
    return {name: pair for name, pair in pairs.items() if not _same(*pair, tolerance)}


def _same(one: float | None, other: float | None, tolerance: float) -> bool:
    return one is not None and other is not None and math.isclose(one, other, rel_tol=tolerance)


def _line(name: str, scale: float) -> str:
    if not name or "\n" in name:
        raise CalibrationError(f"{name!r} is no name for a line of a calibration cache")
    with np.errstate(over="ignore"):
        stored = float(np.float32(scale))
    if not math.isfinite(stored) or stored <= 0:
        raise CalibrationError(
            f"the scale of {name!r} is {scale}", why="it must be positive and finite in float32"
        )
    return f"{name}: {struct.pack('>f', stored).hex()}"


def _read(lines: Iterable[str]) -> Iterator[tuple[str, float]]:
    seen: set[str] = set()
    for number, line in enumerate(lines, start=2):
        if not line.strip():
            continue
        found = _LINE.fullmatch(line.rstrip())
        if found is None:
            raise _damaged(number, f"{line[:60]!r} is not `tensor: eight hexadecimal digits`")
        name, scale = found[1], struct.unpack(">f", bytes.fromhex(found[2]))[0]
        if name in seen:
            raise _damaged(number, f"{name!r} is there twice")
        if not math.isfinite(scale) or scale < 0:
            raise _damaged(number, f"the scale of {name!r} is {scale}")
        seen.add(name)
        yield name, scale


def _damaged(line: int, why: str) -> CalibrationError:
    return CalibrationError(f"line {line} of the calibration cache is damaged", why=why, hint=_HINT)
