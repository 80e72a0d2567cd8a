from __future__ import annotations

import sys

import pytest

from targets.contract import Device
from targets.errors import ConfigError, NotInstalledError
from targets.registry import open_device


def test_the_registry_opens_an_address_without_connecting():
    pytest.importorskip("asyncssh", reason="pip install 'embedding-exporter[ssh]'")
    device = open_device("ssh://pi@board.invalid:2222/data")
    assert isinstance(device, Device)
    assert device.name == "ssh://pi@board.invalid:2222/data"
    assert device.measures_latency


def test_a_wrong_address_is_refused():
    with pytest.raises(ConfigError, match="names no SSH device"):
        open_device("ssh:board")


def test_without_asyncssh_the_extra_is_named(monkeypatch):
    for name in [one for one in sys.modules if one.startswith("targets.devices.ssh_")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "asyncssh", None)
    with pytest.raises(NotInstalledError, match="asyncssh") as caught:
        open_device("ssh://board")
    assert "embedding-exporter[ssh]" in caught.value.hint
