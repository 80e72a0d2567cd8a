"""Folders that refuse: what disks and permissions do cannot be pretended."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def readonly_folder() -> Iterator[Path]:
    """A folder that everybody may read and enter, and nobody but root may write to."""
    folder = Path(tempfile.mkdtemp(prefix="embedding-exporter-test-"))
    folder.chmod(0o555)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)
