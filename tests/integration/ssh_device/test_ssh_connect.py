"""Connections that must not come about, each refused by name."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from ssh_server import HOST, free_port, public_key, user_name

from targets.devices.ssh import SshDevice
from targets.errors import DeviceError, RunnerFailedError, StorageError


def script(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def test_a_key_that_is_trusted_connects(open_device):
    assert open_device().distributions(["numpy"])


def test_an_unknown_host_key_is_refused(open_device, server, tmp_path):
    nobody = tmp_path / "nobody"
    nobody.touch()
    with pytest.raises(DeviceError, match=f"host key of {HOST} is unknown") as caught:
        open_device(known_hosts=nobody).hardware()
    assert f"ssh-keyscan -p {server.port} {HOST}" in caught.value.hint


@pytest.mark.parametrize("listed", ["stranger", "stranger_rsa"], ids=["same-kind", "other-kind"])
def test_a_changed_host_key_is_refused(open_device, server, keys, tmp_path, listed):
    other = server.known_hosts(tmp_path / "other", key=public_key(keys, listed))
    with pytest.raises(DeviceError, match=f"host key of {HOST} has changed") as caught:
        open_device(known_hosts=other).hardware()
    assert f"ssh-keygen -R '[{HOST}]:{server.port}'" in caught.value.hint


def test_a_revoked_host_key_is_refused(open_device, server, tmp_path):
    known = server.known_hosts(tmp_path / "revoked")
    known.write_text(f"@revoked {known.read_text()}{known.read_text()}")
    with pytest.raises(DeviceError, match="host key") as caught:
        open_device(known_hosts=known).hardware()
    assert "revoked" in caught.value.why


def test_a_key_that_nobody_let_in_is_refused(open_device, keys):
    with pytest.raises(DeviceError, match="accepts none of the keys") as caught:
        open_device(client_keys=[keys / "stranger"]).hardware()
    assert "ssh-copy-id" in caught.value.hint


def test_a_key_file_that_is_none_is_named(open_device, tmp_path):
    with pytest.raises(DeviceError, match="key file cannot be used"):
        open_device(client_keys=[tmp_path / "absent"]).hardware()


def test_a_port_where_nobody_listens_is_named(open_device):
    with pytest.raises(DeviceError, match="refuses the connection"):
        open_device(port=free_port()).hardware()


def test_a_host_that_does_not_exist_is_named(open_device):
    with pytest.raises(DeviceError, match=r"no host nowhere\.invalid:"):
        open_device(host="nowhere.invalid").hardware()


def test_a_host_that_does_not_answer_is_named(open_device, monkeypatch):
    monkeypatch.setattr("targets.devices.ssh_connect.CONNECT_S", 0.3)
    with socket.create_server((HOST, 0)) as mute, pytest.raises(DeviceError) as caught:
        open_device(port=mute.getsockname()[1]).hardware()
    assert "does not answer within 0.3 s" in caught.value.what


@pytest.fixture
def home(server, far, tmp_path, monkeypatch):
    """A home folder whose ssh configuration knows the device as `board`."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    config = f"Host board\n  HostName {HOST}\n  Port {server.port}\n  User {user_name()}\n"
    (home / ".ssh" / "config").write_text(f"{config}  IdentityFile {server.user_key}\n")
    server.known_hosts(home / ".ssh" / "known_hosts")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return home


def test_the_users_ssh_configuration_counts(home, far):
    device = SshDevice(f"ssh://board{far}?python={sys.executable}")
    assert device.distributions(["numpy"])
    (home / ".ssh" / "known_hosts").unlink()
    with pytest.raises(DeviceError, match="is unknown"):
        SshDevice(device.name).hardware()


@pytest.mark.skipif(shutil.which("ssh-agent") is None, reason="no ssh-agent")
def test_a_key_of_the_agent_counts(home, far, server, monkeypatch):
    device = SshDevice(f"ssh://board{far}?python={sys.executable}")
    config = home / ".ssh" / "config"
    config.write_text(config.read_text().partition("  IdentityFile")[0])
    with pytest.raises(DeviceError, match="accepts none of the keys"):
        device.hardware()
    socket_path = str(home / "agent")
    command = ["ssh-agent", "-D", "-a", socket_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as agent:
        agent.stdout.readline()  # it listens
        monkeypatch.setenv("SSH_AUTH_SOCK", socket_path)
        subprocess.run(["ssh-add", "-q", server.user_key], check=True)
        assert device.distributions(["numpy"])
        agent.terminate()


def test_a_configuration_that_checks_no_host_keys_is_not_followed(home, far):
    config = home / ".ssh" / "config"
    config.write_text(config.read_text() + "  UserKnownHostsFile none\n")
    (home / ".ssh" / "known_hosts").unlink()
    with pytest.raises(DeviceError, match="is unknown"):
        SshDevice(f"ssh://board{far}?python={sys.executable}").hardware()


# -------------------------------------------------------------------- what is lacking there


def test_a_python_that_is_missing_is_named(open_device):
    with pytest.raises(DeviceError, match=r"no Python 3\.10 or newer answers as /absent"):
        open_device(python="/absent/python3").hardware()


def test_a_python_that_is_too_old_is_named(open_device, tmp_path):
    old = script(tmp_path / "old", """echo '{"result": {"python": "3.9.18"}}'""")
    with pytest.raises(DeviceError, match=r"no Python 3\.10 or newer") as caught:
        open_device(python=old).hardware()
    assert "3.9.18" in caught.value.why


def test_numpy_that_is_missing_is_named_with_the_command(open_device, start, tmp_path, far):
    bare = script(tmp_path / "bare", f'exec {sys.executable} -S "$@"')
    with pytest.raises(DeviceError, match="has no numpy") as caught:
        start(open_device(python=bare))
    assert f"{bare} -m pip install numpy" in caught.value.hint
    assert list(far.iterdir()) == []


def test_a_runtime_that_is_missing_is_named_with_the_command(open_device, start, server):
    with pytest.raises(RunnerFailedError, match="cannot import a_runtime_nobody_has") as caught:
        start(open_device(), options={"at_load": "import"})
    login = f"ssh -p {server.port} {user_name()}@{HOST}"
    assert caught.value.hint == f"{login} {sys.executable} -m pip install a_runtime_nobody_has"


def test_an_older_runtime_is_a_warning(open_device, start, plan, tmp_path):
    source = plan.adapter.read_text()
    for number, older in (("0.1", True), ("9999.1", False)):
        adapter = tmp_path / f"adapter_{number}.py"
        adapter.write_text(source.replace('{"table": "1.0"}', f'{{"onnx": "{number}"}}'))
        warnings = start(open_device(), adapter=adapter).info().warnings
        assert ["onnx is 0.1 on the device" in warning for warning in warnings] == [True] * older


def test_a_model_that_is_missing_here_is_named(open_device, start, tmp_path):
    with pytest.raises(RunnerFailedError, match="nothing to load") as caught:
        start(open_device(), model=tmp_path / "absent.onnx")
    assert "absent.onnx" in caught.value.why


def test_a_folder_there_that_cannot_be_used_is_named(open_device, far):
    far.write_text("a file stands in the way")
    device = open_device()
    with pytest.raises(StorageError, match="cannot be used") as caught:
        device.hardware()
    assert device.name in caught.value.what


def test_files_of_the_device_are_private(open_device, far):
    open_device().hardware()
    assert far.stat().st_mode & 0o777 == 0o700
