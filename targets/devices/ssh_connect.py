"""Opening an SSH connection: strict about hosts, keys only, every failure by name."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from pathlib import Path

import asyncssh

from targets.devices.ssh_address import SshAddress
from targets.errors import DeviceError

CONNECT_S = 20.0
KEEPALIVE_S = 15.0
KEEPALIVE_COUNT = 3
"""A connection is lost when the device stays silent for so many intervals and one more."""
_SSH_PORT = 22
_SYSTEM_KNOWN_HOSTS = Path("/etc/ssh/ssh_known_hosts")
_TRY_AGAIN = (
    asyncssh.ConnectionLost,
    asyncssh.KeyExchangeFailed,
    ConnectionResetError,
    TimeoutError,
)


class Client(asyncssh.SSHClient):
    """Remembers why the connection ended."""

    def __init__(self) -> None:
        self.lost = ""

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note of the end."""
        self.lost = str(exc or "closed")


async def connect(
    address: SshAddress, known_hosts: Path | None, client_keys: Sequence[Path]
) -> tuple[asyncssh.SSHClientConnection, Client]:
    """Connect and log in; what may be a passing trouble is tried once more.

    Args:
        address: host, user and port; what it leaves open the user's ssh configuration says.
        known_hosts: file of trusted host keys; None: those of the user and the system.
        client_keys: key files; none: those of the ssh configuration, the default ones, and
            those of the agent.

    Raises:
        DeviceError: no connection; `what` says which step failed.
    """
    options = await _options(address, client_keys)
    trusted = _read_known_hosts(address, known_hosts, options)
    try:
        with contextlib.suppress(*_TRY_AGAIN):
            return await _open(address, options, trusted)
        # A server without a key of the kinds that known_hosts lists for it hangs up or finds no
        # common algorithm. Offered all kinds, it shows its key, which is then refused by name.
        return await _open(address, options, trusted, server_host_key_algs="default")
    except (asyncssh.Error, OSError, ValueError) as error:
        raise _named(address, options, trusted, error) from error


async def _options(
    address: SshAddress, client_keys: Sequence[Path]
) -> asyncssh.SSHClientConnectionOptions:
    given = {"username": address.user, "port": address.port}
    keys = {"client_keys": [str(key) for key in client_keys]} if client_keys else {}
    try:
        options: asyncssh.SSHClientConnectionOptions
        options = await asyncssh.SSHClientConnectionOptions.construct(
            host=address.host,
            preferred_auth=["publickey"],
            connect_timeout=CONNECT_S,
            keepalive_interval=KEEPALIVE_S,
            keepalive_count_max=KEEPALIVE_COUNT,
            **{name: value for name, value in given.items() if value is not None},
            **keys,
        )
    except (asyncssh.ConfigParseError, asyncssh.KeyImportError, OSError, ValueError) as error:
        raise DeviceError(
            f"{address.text}: the ssh configuration or a key file cannot be used",
            why=str(error),
            hint="look at ~/.ssh/config; keys with a passphrase belong into ssh-agent",
        ) from error
    return options


def _read_known_hosts(
    address: SshAddress, known_hosts: Path | None, options: asyncssh.SSHClientConnectionOptions
) -> asyncssh.SSHKnownHosts:
    """Read the trusted keys.

    A configuration without any file would switch asyncssh's check off; here it trusts nobody.
    """
    if known_hosts is not None:
        files = [known_hosts]
    else:
        named = options.known_hosts if isinstance(options.known_hosts, list) else []
        paths = [str(file) for file in named] or ["~/.ssh/known_hosts"]
        files = [*(Path(path).expanduser() for path in paths), _SYSTEM_KNOWN_HOSTS]
    try:
        return asyncssh.read_known_hosts([str(file) for file in files if file.is_file()])
    except (OSError, ValueError) as error:
        raise DeviceError(
            f"{address.text}: the list of known hosts cannot be read", why=str(error)
        ) from error


async def _open(
    address: SshAddress,
    options: asyncssh.SSHClientConnectionOptions,
    trusted: asyncssh.SSHKnownHosts,
    **changes: str,
) -> tuple[asyncssh.SSHClientConnection, Client]:
    client = Client()
    connection = await asyncssh.connect(
        address.host, options=options, known_hosts=trusted, client_factory=lambda: client, **changes
    )
    return connection, client


# ------------------------------------------------------------------------------ errors


def _named(
    address: SshAddress,
    options: asyncssh.SSHClientConnectionOptions,
    trusted: asyncssh.SSHKnownHosts,
    error: Exception,
) -> DeviceError:
    """Say which step of connecting failed, and what mends it."""
    host = f"{options.host}:{options.port}"
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        return _bad_host_key(address, options, trusted, error)
    what, hint = _step(error, host, address)
    return DeviceError(f"{address.text}: {what}", why=str(error) or repr(error), hint=hint)


def _step(error: Exception, host: str, address: SshAddress) -> tuple[str, str]:
    if isinstance(error, asyncssh.PermissionDenied):
        return (
            f"{host} accepts none of the keys",
            f"ssh-copy-id {address.login}, or ssh-add the key; passwords are never asked for",
        )
    if isinstance(error, socket.gaierror):
        return f"no host {host} is known", "check the name, or add a Host to ~/.ssh/config"
    if isinstance(error, ConnectionRefusedError):
        return f"{host} refuses the connection", "start sshd there, or name its port in the address"
    if isinstance(error, asyncssh.KeyExchangeFailed):
        return f"{host} and this machine agree on no way to encrypt", "update sshd there"
    if isinstance(error, TimeoutError):
        return f"{host} does not answer within {CONNECT_S:g} s", f"try: ssh {address.login}"
    return f"no connection to {host}", f"try: ssh {address.login}"


def _bad_host_key(
    address: SshAddress,
    options: asyncssh.SSHClientConnectionOptions,
    trusted: asyncssh.SSHKnownHosts,
    error: Exception,
) -> DeviceError:
    """Tell a host that nobody knows from one that shows another key than before."""
    name = str(options.host_key_alias or options.host)
    port = None if options.port == _SSH_PORT else options.port
    listed = any(trusted.match(name, "", port))
    if not listed:
        return DeviceError(
            f"{address.text}: the host key of {name} is unknown",
            why=str(error),
            hint=f"ssh {address.login} once and compare the fingerprint, or, on a network you "
            f"trust: ssh-keyscan {address.scan} >> ~/.ssh/known_hosts",
        )
    known_as = name if port is None else f"[{name}]:{port}"
    return DeviceError(
        f"{address.text}: the host key of {name} has changed",
        why=f"{error}; known_hosts lists another one: the device was set up anew, or somebody "
        f"stands in between",
        hint=f"when you are sure: ssh-keygen -R '{known_as}', then ssh {address.login}",
    )
