"""A stand-in for a GPU: what `exporter build` does is real, TensorRT and the GPU are not.

The "engine" is the prepared ONNX file, run by ONNX Runtime on this CPU (`stand_in_session.py`).
No latency that comes of it means anything.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import onnx

from targets.artifacts import artifact_file, plan_to_run
from targets.contract import Availability, Device, FinishRequest, Hardware, RuntimeVariant
from targets.errors import CompileError
from targets.tensorrt.running import EMBEDDING
from targets.tensorrt.target import TensorRtTarget

ENGINE = "model.plan"
MARK = onnx.ModelProto(doc_string="stands for an engine").SerializeToString()


class StandInGpu(TensorRtTarget):
    """Finishes as TensorRT would: one file that the runner loads, written beside its build plan."""

    def __init__(self, *, here: bool = True, breaks: str = "") -> None:
        self.here, self.breaks = here, breaks
        self.requests: list[FinishRequest] = []

    def probe(self, device: Device) -> Availability:
        if not self.here:
            return Availability(ok=False, missing=("no GPU: bring one",))
        return Availability(ok=True, fingerprint=self.detected_hardware(device).fingerprint)

    def detected_hardware(self, device: Device) -> Hardware:
        gpu = self.prepared_hardware(("8.9",))
        return replace(gpu, model_name="stand-in GPU", num_cores=device.hardware().num_cores)

    def finish(self, request: FinishRequest):
        self.requests.append(request)
        if request.artifact.recipe.name == self.breaks:
            raise CompileError(f"no engine of {self.breaks}", why="for a test")
        source = request.engine
        if source is None:
            plan = json.loads((request.artifact.directory / "build_plan.json").read_text())
            source = request.artifact.directory / plan["graph"]
        place = request.output_dir / ENGINE
        # what is behind a message is merged into it: other bytes, the same graph
        place.write_bytes(source.read_bytes() + MARK)
        return replace(
            request.artifact, directory=request.output_dir, files=(artifact_file(place),)
        )

    def run_plan(self, artifact, graph, pad_token_id, num_threads):
        return plan_to_run(
            artifact,
            graph,
            pad_token_id,
            adapter=Path(__file__).with_name("stand_in_session.py"),
            output=EMBEDDING,
            options={"stand_in": "onnxruntime on this CPU"},
            length_multiple=1,
            max_batch_tokens=1024,
        )

    def variants(self, plan, num_threads):
        """One other way of running, as CUDA graphs are on a GPU."""
        other = replace(plan, max_batch_tokens=512)
        why = "a way of running that the report must tell of"
        return (RuntimeVariant(name="other", plan=other, num_threads=num_threads, why=why),)
