"""Write the facts of `cuda.bindings.runtime`, which imports without a driver.

    python tests/tensorrt_api/generate_cuda.py

run where `cuda-bindings` is installed: every public name, the parameters of the functions and the
values of the enums that `targets.tensorrt.cuda` may use. The result is `cuda_runtime.json`.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path

FUNCTIONS = (
    "cudaDeviceGetPCIBusId cudaDriverGetVersion cudaEventCreate cudaEventDestroy "
    "cudaEventElapsedTime cudaEventRecord cudaFree cudaFreeHost cudaGetErrorString "
    "cudaGraphDestroy cudaGraphExecDestroy cudaGraphInstantiate cudaGraphLaunch cudaMalloc "
    "cudaMallocHost cudaMemcpyAsync cudaSetDevice cudaStreamBeginCapture "
    "cudaStreamCreateWithFlags cudaStreamDestroy cudaStreamEndCapture cudaStreamSynchronize"
)
ENUMS = "cudaError_t cudaMemcpyKind cudaStreamCaptureMode"
CONSTANTS = "cudaStreamNonBlocking"


def read_runtime() -> dict[str, object]:
    """Write down the package as it is installed here."""
    import cuda.bindings
    from cuda.bindings import runtime

    return {
        "version": cuda.bindings.__version__,
        "functions": {
            name: list(inspect.signature(getattr(runtime, name)).parameters)
            for name in FUNCTIONS.split()
        },
        "enums": {
            name: {member.name: member.value for member in getattr(runtime, name)}
            for name in ENUMS.split()
        },
        "constants": {name: int(getattr(runtime, name)) for name in CONSTANTS.split()},
        "names": sorted(name for name in dir(runtime) if name.startswith("cuda")),
    }


if __name__ == "__main__":
    rows = [f" {json.dumps(k)}: {json.dumps(v)}" for k, v in read_runtime().items()]
    text = "{\n" + ",\n".join(rows) + "\n}\n"
    Path(__file__).with_name("cuda_runtime.json").write_text(text, encoding="utf-8")
