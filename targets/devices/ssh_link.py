"""One SSH connection and the program at its far end: requests, answers, raw bytes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shlex
import weakref
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import asyncssh

from targets.devices import ssh_loop
from targets.devices.ssh_address import SshAddress
from targets.devices.ssh_connect import connect
from targets.errors import DeviceError, RunnerCrashedError, StorageError

Process = asyncssh.SSHClientProcess[bytes]

MIN_PYTHON = (3, 10)
_SILENCE_S = 900.0
_EXIT_S = 10.0
_CHUNK_BYTES = 1 << 18
_NOISE_LINES = 200
"""What a login shell's start-up files may print before the first answer."""
_MODULES = ("process", "files", "machine", "server")
_BOOTSTRAP = """\
import json, sys, types
sys.path.pop(0)
def add(name, source):
    module = types.ModuleType(name)
    module.__path__ = []
    module.__package__ = "far"
    sys.modules[name] = module
    exec(compile(source, name, "exec"), module.__dict__)
    return module
for name, source in json.loads(sys.stdin.buffer.readline()):
    last = add(name, source)
    if name != "far":
        setattr(sys.modules["far"], name[4:], last)
last.main()
"""


class Link:
    """A connection to a device, for one runner or one question.

    Args:
        address: where to connect.
        known_hosts: as `connect` takes it.
        client_keys: as `connect` takes them.

    Raises:
        DeviceError: no connection, no Python there, or too old a one.
        StorageError: the folder there cannot be used.
    """

    def __init__(
        self, address: SshAddress, known_hosts: Path | None, client_keys: Sequence[Path]
    ) -> None:
        self.address = address
        self._asking = asyncio.Lock()
        self._connection, self._client = ssh_loop.run(connect(address, known_hosts, client_keys))
        self._finalizer = weakref.finalize(self, _abort, self._connection)
        try:
            self._far = self.start(far_command(address.python))
            self.hello = self._say_hello()
        except BaseException:
            self.abort()
            raise

    @property
    def lost(self) -> str:
        """Why the connection ended; "" as long as it has not."""
        return self._client.lost

    @property
    def scratch(self) -> str:
        """The folder there for this run's files."""
        return str(self.hello["scratch"])

    def start(self, command: str) -> Process:
        """Start a program there.

        Raises:
            RunnerCrashedError: the connection was lost.
        """
        try:
            return ssh_loop.run(_start(self._connection, command))
        except (asyncssh.Error, OSError) as error:
            raise self.lost_error("start", str(error)) from error

    def ask(self, verb: str, payload: Sequence[Path] = (), **values: object) -> dict[str, Any]:
        """Let the far end do a request.

        Args:
            verb: a method of `targets.devices.far.server.FarSide`.
            payload: files sent behind the request.
            values: what the method takes.

        Returns:
            Its result; raw bytes that came with it are under "bytes".

        Raises:
            StorageError: the device could not write or read, or a file arrived damaged.
            RunnerCrashedError: the connection was lost.
        """
        try:
            answer = ssh_loop.run(self._ask(verb, payload, values))
        except (asyncssh.Error, OSError, EOFError, ValueError) as error:
            self.abort()
            raise self.lost_error(verb, str(error) or type(error).__name__) from error
        except BaseException:  # a late answer would be taken for the next one's
            self.abort()
            raise
        if "error" in answer:
            raise self._far_error(answer["error"]["message"])
        result: dict[str, Any] = answer["result"]
        return result

    async def _ask(
        self, verb: str, payload: Sequence[Path], values: dict[str, object]
    ) -> dict[str, Any]:
        size_bytes = sum(path.stat().st_size for path in payload)
        request = {"verb": verb, **values, "payload_bytes": size_bytes}
        stdin, stdout = self._far.stdin, self._far.stdout
        async with self._asking:
            stdin.write(json.dumps(request).encode() + b"\n")
            for chunk in _chunks(payload):
                stdin.write(chunk)
                await stdin.drain()
            line = await asyncio.wait_for(stdout.readline(), _SILENCE_S)
            if not line:
                raise EOFError("it ended")
            answer: dict[str, Any] = json.loads(line)
            if answer.get("payload_bytes"):
                answer["result"]["bytes"] = await stdout.readexactly(answer["payload_bytes"])
        return answer

    def _say_hello(self) -> dict[str, Any]:
        sources = json.dumps(far_sources()).encode() + b"\n"
        request = {"verb": "hello", "folder": self.address.folder}
        try:
            answer = ssh_loop.run(
                self._first_answer(sources + json.dumps(request).encode() + b"\n")
            )
        except (asyncssh.Error, OSError, EOFError) as error:
            raise self._no_python(str(error)) from error
        if "error" in answer:
            raise self._far_error(answer["error"]["message"])
        hello: dict[str, Any] = answer["result"]
        if tuple(map(int, hello["python"].split(".")[:2])) < MIN_PYTHON:
            raise self._no_python(f"{self.address.python} there is Python {hello['python']}")
        return hello

    async def _first_answer(self, request: bytes) -> dict[str, Any]:
        # written to one that has ended already: what it said tells why
        with contextlib.suppress(asyncssh.Error, OSError):
            self._far.stdin.write(request)
        for _ in range(_NOISE_LINES):
            line = await asyncio.wait_for(self._far.stdout.readline(), _SILENCE_S)
            if not line:
                break
            with contextlib.suppress(ValueError):
                answer: object = json.loads(line)
                if isinstance(answer, dict) and answer.keys() & {"result", "error"}:
                    return answer
        said = (await asyncio.wait_for(self._far.stderr.read(), _EXIT_S)).decode(errors="replace")
        raise EOFError(said.strip() or "it said nothing")

    # -------------------------------------------------------------------------- errors

    def _far_error(self, message: str) -> StorageError:
        return StorageError(
            f"{self.address.text}: {message}",
            hint="free space there, or name another folder: ssh://host/folder",
        )

    def lost_error(self, doing: str, why: str) -> RunnerCrashedError:
        """Say that the device is gone."""
        return RunnerCrashedError(
            f"{self.address.text}: the connection was lost during {doing!r}",
            why=self.lost or why,
            hint="look at the device and its network; the next start connects anew",
        )

    def _no_python(self, why: str) -> DeviceError:
        version = ".".join(map(str, MIN_PYTHON))
        return DeviceError(
            f"{self.address.text}: no Python {version} or newer answers as {self.address.python}",
            why=why,
            hint="install python3 there, or name one: ssh://host?python=/path/to/python3",
        )

    # ----------------------------------------------------------------------------- end

    def close(self) -> None:
        """Let the far end clean up, then hang up; never raises."""
        with contextlib.suppress(asyncssh.Error, OSError):
            ssh_loop.run(_leave(self._far, self._connection))
        self.abort()

    def abort(self) -> None:
        """Hang up at once; the far end cleans up by itself."""
        self._finalizer()


async def _start(connection: asyncssh.SSHClientConnection, command: str) -> Process:
    return await connection.create_process(command, encoding=None)


async def _leave(far: Process, connection: asyncssh.SSHClientConnection) -> None:
    far.stdin.write_eof()
    await asyncio.wait_for(far.wait_closed(), _EXIT_S)
    connection.close()
    await asyncio.wait_for(connection.wait_closed(), _EXIT_S)


def _abort(connection: asyncssh.SSHClientConnection) -> None:
    """Hang up also when the owner is dropped or the interpreter ends."""
    ssh_loop.loop().call_soon_threadsafe(connection.abort)


def _chunks(paths: Sequence[Path]) -> Iterator[bytes]:
    for path in paths:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                yield chunk


def far_command(python: str) -> str:
    """Return the command line, for any login shell, that starts the far end's program."""
    return f"exec {quote_path(python)} -E -X utf8 -c {shlex.quote(_BOOTSTRAP)}"


def far_sources() -> list[tuple[str, str]]:
    """Return names and sources of the far end's modules, imported ones first."""
    package = files("targets.devices.far")
    modules = [(f"far.{name}", f"{name}.py") for name in _MODULES]
    return [
        (name, (package / file).read_text()) for name, file in [("far", "__init__.py"), *modules]
    ]


def quote_path(path: str) -> str:
    """Quote a path for a shell; a leading `~/` stays the home folder."""
    if path.startswith("~/"):
        return f'"$HOME"/{shlex.quote(path[2:])}'
    return shlex.quote(path)
