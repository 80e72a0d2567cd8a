"""Options that several commands share, with one spelling and one help text each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

CUDA_API_HELP = "Package that engines speak to CUDA with: cuda-bindings or pycuda [cuda-bindings]."

ThreadsOption = Annotated[int | None, typer.Option("--threads", help="CPU threads [all].")]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="Configuration file [exporter.toml].")
]
CacheOption = Annotated[Path | None, typer.Option("--cache", help="Cache folder [the user's].")]
NoCacheOption = Annotated[
    bool, typer.Option("--no-cache", help="Do everything anew, keep nothing.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON only.")]
FieldOption = Annotated[
    str | None, typer.Option("--field", help="Field or column of the text [text].")
]
CudaApiOption = Annotated[str | None, typer.Option("--cuda-api", help=CUDA_API_HELP)]
