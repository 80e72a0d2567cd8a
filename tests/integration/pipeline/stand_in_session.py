"""A stand-in for a TensorRT session: an "engine" that is an ONNX file, run by ONNX Runtime.

It says int8 of as many products as the file has quantized, so that checks have something to read.
"""

from __future__ import annotations


def open_session(model, plan):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = plan.num_threads
    options.log_severity_level = 4
    data = model.read_bytes()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return StandInSession(session, plan, data)


class StandInSession:
    def __init__(self, session, plan, data):
        self._session, self._plan = session, plan
        self._dtype = "int8" if b"QuantizeLinear" in data else "float32"

    def run(self, inputs):
        fed = {name: inputs[name] for name in self._plan.inputs}
        return self._session.run([self._plan.output], fed)[0]

    def inspect(self, inputs):
        return [("gemm", self._dtype, 12, None)]

    def options(self):
        return dict(self._plan.options)

    def versions(self):
        return {"stand-in": "1"}

    def close(self):
        self._session = None
