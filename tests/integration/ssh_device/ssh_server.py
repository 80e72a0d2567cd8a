"""SSH servers on the loopback interface, and a cable to them that can be cut."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncssh

HOST = "127.0.0.1"
SSHD_CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
PidFile none
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running server: its port, its host key, and a user key that it accepts."""

    kind: str
    port: int
    host_key: str
    user_key: Path

    def known_hosts(self, path: Path, *ports: int, key: str = "") -> Path:
        """Write a list that trusts the server, or another key, on these ports."""
        lines = [f"[{HOST}]:{port} {key or self.host_key}\n" for port in ports or (self.port,)]
        path.write_text("".join(lines))
        return path


def write_keys(folder: Path) -> None:
    kinds = dict.fromkeys(("host", "user", "stranger"), "ssh-ed25519")
    for name, kind in (kinds | {"stranger_rsa": "ssh-rsa"}).items():
        key = asyncssh.generate_private_key(kind)
        key.write_private_key(folder / name)
        (folder / name).chmod(0o600)
        key.write_public_key(folder / f"{name}.pub")


def public_key(folder: Path, name: str) -> str:
    """Algorithm and key, without the comment."""
    return " ".join((folder / f"{name}.pub").read_text().split()[:2])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def run_sshd(folder: Path) -> Iterator[Server]:
    """OpenSSH's own server as the current user, keys only.

    Raises:
        RuntimeError: it is not installed or does not start; says why.
    """
    sshd = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if sshd is None:
        raise RuntimeError("no sshd (Debian: apt-get install openssh-server)")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd run by root confines itself
    port = free_port()
    (folder / "config").write_text(SSHD_CONFIG.format(port=port, folder=folder))
    process = subprocess.Popen(
        [sshd, "-D", "-e", "-f", folder / "config"], stderr=subprocess.PIPE, text=True
    )
    with process:
        said = [process.stderr.readline()]
        while said[-1] and "listening" not in said[-1]:
            said.append(process.stderr.readline())
        if not said[-1]:
            raise RuntimeError(f"sshd does not start: {''.join(said).strip()}")
        drain = threading.Thread(target=process.stderr.read, daemon=True)
        drain.start()
        yield Server(
            kind="sshd",
            port=port,
            host_key=public_key(folder, "host"),
            user_key=folder / "user",
        )
        process.terminate()
        drain.join()  # the sessions hold the pipe too


@contextlib.contextmanager
def run_asyncssh(folder: Path, greeting: str = "") -> Iterator[Server]:
    """A server of asyncssh whose shell may greet before it runs a command."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(work):
        return asyncio.run_coroutine_threadsafe(work, loop).result(30)

    async def serve(process: asyncssh.SSHServerProcess) -> None:
        command = f"echo {greeting}; {process.command}" if greeting else process.command
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), asyncio.subprocess.PIPE)
        child = await asyncio.create_subprocess_exec("/bin/sh", "-c", command, **pipes)
        feeding = asyncio.create_task(_forward(process.stdin, child.stdin))
        await asyncio.gather(
            _forward(child.stdout, process.stdout), _forward(child.stderr, process.stderr)
        )
        status = await child.wait()
        feeding.cancel()
        if status < 0:
            process.exit_with_signal(signal.Signals(-status).name.removeprefix("SIG"))
        else:
            process.exit(status)

    async def listen() -> asyncssh.SSHAcceptor:
        return await asyncssh.listen(
            HOST,
            0,
            server_host_keys=[str(folder / "host")],
            authorized_client_keys=str(folder / "user.pub"),
            process_factory=serve,
            encoding=None,
        )

    server = run(listen())
    try:
        yield Server(
            kind="asyncssh",
            port=server.get_port(),
            host_key=public_key(folder, "host"),
            user_key=folder / "user",
        )
    finally:
        server.close()
        run(server.wait_closed())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _forward(source: object, target: object) -> None:
    """Copy until either end is gone, then close a child's stdin."""
    with contextlib.suppress(asyncssh.Error, OSError):
        while data := await source.read(1 << 16):
            target.write(data)
            await target.drain()
    if isinstance(target, asyncio.StreamWriter):
        target.close()


class Cable:
    """Forwards connections to a server until it is cut."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._ends: list[socket.socket] = []
        self._stalled = threading.Event()
        self.sent_bytes = 0
        self._listener = socket.create_server((HOST, 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection((HOST, self._target))
            self._ends += [near, far]
            for ends in ((near, far), (far, near)):
                self._threads.append(threading.Thread(target=self._pump, args=ends))
                self._threads[-1].start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if not self._stalled.is_set():
                    target.sendall(data)
                if target.getpeername()[1] == self._target:
                    self.sent_bytes += len(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def stall(self) -> None:
        """Lose everything from now on without a word, as a cable does that is pulled."""
        self._stalled.set()

    def cut(self) -> None:
        """End every connection at once; new ones are forwarded."""
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join()
        for end in self._ends:
            end.close()


def user_name() -> str:
    return getpass.getuser()
