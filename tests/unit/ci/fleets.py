"""A small fleet, and the project's own."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[3]
OWN = ROOT / "ci" / "devices.toml"

TWO = """
model = "a/model"
revision = "abc"
eval = "texts"
arguments = ["--seed", "1"]
gate = "gate.toml"

[device.server]
targets = ["openvino", "onnxruntime"]
runner = ["linux", "x64"]
extras = ["openvino", "demo"]
policy = "strict.toml"
arguments = ["--objective", "latency"]

[device.gpu-t4]
targets = ["tensorrt"]
device = "local"
runner = ["linux"]
finish_runner = ["gpu", "t4"]
extras = ["tensorrt", "demo"]
"""


def write_fleet(folder: Path, text: str = TWO) -> Path:
    (folder / "gate.toml").write_text("")
    (folder / "strict.toml").write_text("[policy]\nk = 5\n")
    path = folder / "devices.toml"
    path.write_text(text)
    return path
