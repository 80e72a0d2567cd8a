"""Devices that are this machine keep the contract of all devices."""

from __future__ import annotations

import pytest
from device_checks import DEVICE_CHECKS, make_kit

from targets.devices.capped import device_names
from targets.errors import ConfigError
from targets.registry import open_device


def device_here(name: str):
    try:
        return open_device(name)
    except ConfigError as error:
        pytest.skip(error.what)


@pytest.mark.parametrize("check", DEVICE_CHECKS)
def test_local(check, tmp_path):
    DEVICE_CHECKS[check](open_device("local"), make_kit(tmp_path))


@pytest.mark.parametrize("check", DEVICE_CHECKS)
def test_capped(check, tmp_path):
    """The oldest cap: every x86 CPU of this decade has what it takes."""
    DEVICE_CHECKS[check](device_here(device_names()[0]), make_kit(tmp_path))
