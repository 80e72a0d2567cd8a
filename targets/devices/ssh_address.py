"""Addresses of SSH devices: `ssh://[user@]host[:port][/folder][?python=PATH]`."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from targets.errors import ConfigError

DEFAULT_FOLDER = "~/.cache/embedding-exporter/device"
DEFAULT_PYTHON = "python3"
SCHEME = "ssh"
_FORM = "ssh://[user@]host[:port][/folder][?python=/path/to/python3]"


@dataclass(frozen=True, slots=True, kw_only=True)
class SshAddress:
    """Where an SSH device is and what it uses there.

    Args:
        text: the address as it was given; the device's name.
        host: a name, an address, or a `Host` of the user's ssh configuration.
        user: None: what the ssh configuration says, else the name of the user here.
        port: None: what the ssh configuration says, else 22.
        folder: there, for files that are pushed once; `~` is the home folder.
        python: the interpreter there.
    """

    text: str
    host: str
    user: str | None
    port: int | None
    folder: str
    python: str

    @property
    def login(self) -> str:
        """The arguments of an `ssh` command for this address."""
        who = f"{self.user}@{self.host}" if self.user else self.host
        return who if self.port is None else f"-p {self.port} {who}"

    @property
    def scan(self) -> str:
        """The arguments of `ssh-keyscan` for this address."""
        return self.host if self.port is None else f"-p {self.port} {self.host}"


def parse_address(text: str) -> SshAddress:
    """Read an address.

    A path begins at the root; `/~/folder` begins at the home folder.

    Raises:
        ConfigError: it is not of the form above, or holds a password.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
        options = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
    except ValueError as error:
        raise _wrong(text, str(error)) from error
    if parts.scheme != SCHEME:
        raise _wrong(text, "it is no ssh address")
    if not parts.hostname:
        raise _wrong(text, "no host is named")
    if parts.fragment:
        raise _wrong(text, "it has a part behind #")
    if parts.password is not None:
        raise _wrong(text.replace(parts.password, "…"), "passwords are not used, only keys")
    if unknown := sorted(options.keys() - {"python"}):
        raise _wrong(text, f"unknown option {', '.join(unknown)}; the only one is python")
    if parts.hostname.startswith("-") or (parts.username or "").startswith("-"):
        raise _wrong(text, "a name that begins with a dash is taken for a flag")
    return SshAddress(
        text=text,
        host=_host(parts.netloc),
        user=unquote(parts.username) if parts.username else None,
        port=port,
        folder=_folder(unquote(parts.path)),
        python=options.get("python", DEFAULT_PYTHON),
    )


def _host(netloc: str) -> str:
    """Take the host out of an address in its own spelling: `hostname` is lower case."""
    host = netloc.rpartition("@")[2]
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return unquote(host.partition(":")[0])


def _folder(path: str) -> str:
    """Turn the path of an address into a folder there."""
    folder = path.rstrip("/")
    if folder == "/~":
        return "~"
    return folder.removeprefix("/") if folder.startswith("/~/") else folder or DEFAULT_FOLDER


def _wrong(text: str, why: str) -> ConfigError:
    return ConfigError(f"{text!r} names no SSH device", why=why, hint=f"the form is {_FORM}")
