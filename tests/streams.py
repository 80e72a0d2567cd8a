"""The whole suite in two streams side by side: `python tests/streams.py`.

Whole exports in child processes wait a good deal, for processes to start among other things, and so
do most other tests. What shares the export of the real model stays in one stream, so that it is
made once. One stream is shown as it runs, the other when it has ended.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXPORTS = (
    "tests/integration/pipeline",
    "tests/loaders",
    "tests/integration/report_page",
    "tests/integration/ssh_device",
)


def main() -> int:
    """Run both; 0 where both passed."""
    pytest = [sys.executable, "-m", "pytest"]
    shown = [*pytest, *(f"--ignore={folder}" for folder in EXPORTS)]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        with subprocess.Popen(
            [*pytest, *EXPORTS], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT
        ) as exports:
            first = subprocess.run(shown, cwd=ROOT, check=False).returncode
            second = exports.wait()
        log.seek(0)
        print(log.read(), flush=True)
    return first or second


if __name__ == "__main__":
    sys.exit(main())
