"""An emulated CPU keeps the contract of all devices."""

from __future__ import annotations

import pytest
from contract.device_checks import DEVICE_CHECKS, make_kit

pytestmark = pytest.mark.qemu


@pytest.mark.parametrize("check", DEVICE_CHECKS)
def test_contract(check, emulate, tmp_path):
    DEVICE_CHECKS[check](emulate("neoverse-n1"), make_kit(tmp_path))
