"""Write the facts of TensorRT's Python API from its bindings, which need no GPU to be read.

    python tests/tensorrt_api/generate.py WHEEL...

WHEEL is `tensorrt_cu13_bindings-VERSION-cp311-*.whl` for this interpreter. The bindings are loaded
in a child process over empty libraries with the functions that they import (a C compiler is
needed), and every class of `CLASSES` and every enum is written down: constructors, methods and
properties with pybind11's own signatures. The result lies beside this file as `apiMAJOR.json`.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PACKAGE = "tensorrt_bindings"
CLASSES = [
    "Builder",
    "BuilderFlag",
    "DataType",
    "EngineInspector",
    "HardwareCompatibilityLevel",
    "IBuilderConfig",
    "ICudaEngine",
    "IExecutionContext",
    "IHostMemory",
    "IInt8Calibrator",
    "IInt8EntropyCalibrator2",
    "ILogger",
    "INetworkDefinition",
    "IOptimizationProfile",
    "ITensor",
    "ITimingCache",
    "IRuntimeConfig",
    "CalibrationAlgoType",
    "LayerInformationFormat",
    "Logger",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "OnnxParser",
    "OnnxParserFlag",
    "ParserError",
    "ProfilingVerbosity",
    "QuantizationFlag",
    "Runtime",
    "TensorIOMode",
    "TensorLocation",
    "ErrorCode",
    "ExecutionContextAllocationStrategy",
]
LEFT_OUT = re.compile(r"add_\w+|__del__|__nonzero__")
"""Layers are never added by hand here: a parser makes them."""
_SIGNATURE = re.compile(r"^(?:\d+\. )?\w+\(.*\)(?: -> .+)?$")


def main(wheels: list[str]) -> None:
    for wheel in wheels:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            zipfile.ZipFile(wheel).extractall(root)
            facts = _read_over_empty_libraries(root)
        path = HERE / f"api{facts['version'].split('.')[0]}.json"
        path.write_text(_text(facts), encoding="utf-8")
        print(f"{path.name}: TensorRT {facts['version']}, {len(facts['classes'])} classes")


def _read_over_empty_libraries(root: Path) -> dict[str, Any]:
    binary = next((root / PACKAGE).glob("tensorrt*.so"))
    tools = {
        "needed": ["readelf", "-d", str(binary)],
        "wanted": ["nm", "-D", "--undefined-only", str(binary)],
    }
    told = {
        name: subprocess.run(command, check=True, capture_output=True, text=True).stdout
        for name, command in tools.items()
    }
    libraries = re.findall(r"\[(libnv\w+\.so[.\d]*)\]", told["needed"])
    functions = re.findall(
        r" U (\w*(?:_INTERNAL|PluginRegistry|InferPlugins|ParserVersion))\b", told["wanted"]
    )
    source = root / "empty.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in functions))
    for name in libraries:
        made = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(root / name), source]
        subprocess.run(made, check=True)
    child = [sys.executable, __file__, "--read", str(root)]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(root), "PYTHONPATH": str(root)}
    answer = subprocess.run(child, check=True, capture_output=True, text=True, env=environment)
    return json.loads(answer.stdout)


# ----------------------------------------------------------------------------- in the child


def read_module() -> dict[str, Any]:
    """Write down the module as it is imported here."""
    module = importlib.import_module(PACKAGE)
    classes, enums = {}, {}
    for name in CLASSES:
        found = getattr(module, name, None)
        if found is None:
            continue
        for owner, one in [(name, found), *_nested(name, found)]:
            if hasattr(one, "__members__"):
                enums[owner] = {key: int(value) for key, value in one.__members__.items()}
            else:
                classes[owner] = _class(one)
    return {
        "version": module.__version__,
        "names": sorted(name for name in vars(module) if not name.startswith("_")),
        "classes": classes,
        "enums": enums,
    }


def _nested(owner: str, found: type) -> list[tuple[str, type]]:
    return [
        (f"{owner}.{name}", one)
        for name, one in vars(found).items()
        if inspect.isclass(one) and not name.startswith("_") and owner != "Logger"
    ]


def _class(found: type) -> dict[str, Any]:
    methods, properties = {}, {}
    for name, member in vars(found).items():
        if isinstance(member, property):
            properties[name] = {
                "type": _first(member.fget, r"-> (.+)$"),
                "writable": _first(member.fset, r", \w+: (.+?)\) -> ") if member.fset else None,
            }
        elif _wanted(found, name, member) and (signatures := _signatures(member)):
            methods[name] = signatures
    return {
        "bases": [base.__name__ for base in found.__bases__ if base.__name__ != "pybind11_object"],
        "methods": dict(sorted(methods.items())),
        "properties": dict(sorted(properties.items())),
    }


def _wanted(found: type, name: str, member: object) -> bool:
    by_hand = found.__name__ == "INetworkDefinition" or name.startswith("__")
    return inspect.isroutine(member) and not (by_hand and LEFT_OUT.fullmatch(name))


def _signatures(member: object) -> list[str]:
    lines = (line.strip() for line in (inspect.getdoc(member) or "").splitlines())
    found = [line for line in lines if _SIGNATURE.match(line) and "*args, **kwargs" not in line]
    return [_short(re.sub(r"^\d+\. ", "", line)) for line in found]


def _first(function: object, pattern: str) -> str:
    for line in _signatures(function):
        if found := re.search(pattern, line):
            return found[1]
    found = re.search(pattern, _short((getattr(function, "__doc__", "") or "").strip()), re.M)
    return found[1] if found else ""


def _short(line: str) -> str:
    """Drop module names and values of default enums, which are no Python."""
    line = line.replace(f"{PACKAGE}.tensorrt.", "").replace("nvonnxparser::", "")
    line = line.replace("IParserError", "ParserError")  # the name of the C++ class slips through
    line = re.sub(r"= <(\w[\w.]*): -?\d+>", r'= "\1"', line)
    return re.sub(r"= <[^>]*>", "= ...", line)


def _text(facts: dict[str, Any]) -> str:
    """One line for each class and enum: readable in a diff, small in a folder."""
    lines = [
        f' "version": {json.dumps(facts["version"])}',
        f' "names": {json.dumps(facts["names"])}',
    ]
    for part in ("classes", "enums"):
        rows = [f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(facts[part].items())]
        lines.append(f' "{part}": {{\n' + ",\n".join(rows) + "\n }")
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--read"]:
        print(json.dumps(read_module()))
    else:
        main(sys.argv[1:])
