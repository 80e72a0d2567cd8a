"""A device behind SSH keeps the contract of all devices."""

from __future__ import annotations

import pytest
from contract.device_checks import DEVICE_CHECKS, make_kit


@pytest.mark.parametrize("check", DEVICE_CHECKS)
def test_contract(check, open_device, tmp_path):
    DEVICE_CHECKS[check](open_device(), make_kit(tmp_path))
