"""Another CPU on this machine: QEMU's user mode runs the runner with that CPU's instructions.

The runtime picks the kernels that the CPU would pick, and computes what they compute: numbers are
those of the real kernels. Time is not: every instruction is translated, so that no latency is ever
taken here.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from targets.contract import (
    Batching,
    ExecutedPrecision,
    FloatArray,
    Hardware,
    Progress,
    RunPlan,
    TokenSequences,
    Workload,
    no_progress,
)
from targets.devices.client import DEFAULT_BATCHING, RunnerClient
from targets.devices.local import make_scratch, pack_runner
from targets.devices.process import LineProcess
from targets.devices.shared_work import FEWEST_TEXTS, Embed, embed_shared
from targets.devices.userland import Userland, locate_userland
from targets.devices.userland_lock import UserlandLock
from targets.errors import ConfigError, DeviceError, NotInstalledError
from targets.hardware.cpu import CpuProfile
from targets.hardware.profiles import cpu_profile, cpu_profiles

EMULATED = "emulated"
EMULATED_SILENCE_S = 3600.0
"""A batch of long texts in FP32 takes minutes where every instruction is translated."""

MAX = CpuProfile(
    name="max",
    microarchitecture="qemu-max",
    vendor="QEMU",
    architecture="aarch64",
    # QEMU 10.0.2's /proc/cpuinfo for `-cpu max`, as far as a choice of kernels looks at it.
    features=frozenset(
        {
            *("fp", "asimd", "fphp", "asimdhp", "asimdrdm", "asimddp", "asimdfhm", "i8mm", "bf16"),
            *("sve", "sve2", "svei8mm", "svebf16", "sme", "smei8i32", "smef16f32", "smeb16f32"),
        }
    ),
    sources=("qemu",),
    # The architected algorithm of pointer authentication is slow to emulate, and numbers do not
    # depend on it.
    qemu_model="max,pauth-impdef=on",
)
"""No CPU that one can buy: all that QEMU can emulate of ARM, for kernels that none has yet."""

# QEMU 10.0, target/i386/cpu.c: TCG_7_0_EBX_FEATURES and its like end at AVX2; models that have
# more run without it, with no more than a warning.
_NOT_IN_QEMU = ("avx512", "avx_vnni", "amx")


OneRunner = TypeVar("OneRunner", bound="EmulatedRunner")


class EmulatedRunner(RunnerClient):
    """A runner whose clock means nothing."""

    def time(self, workload: Workload, passes: int, warmup: int = 0) -> FloatArray:
        """Refuse.

        Raises:
            DeviceError: always.
        """
        raise DeviceError(
            f"{workload.name}: no latency is taken on an emulated device",
            why="every instruction is translated: its time says nothing of the real CPU",
            hint="measure on the real one: --device ssh://USER@HOST",
        )

    def inspect(self, tokens: TokenSequences) -> tuple[ExecutedPrecision, ...]:
        """Say which precision each kind of operation ran in, without the shares of time."""
        return tuple(replace(row, time_share=None) for row in super().inspect(tokens))


class EmulatedTeam(EmulatedRunner):
    """A runner that calls others of the same artifact in where there are many texts.

    Under QEMU two threads of one process take 2.6 times the work of one for the same texts
    (ONNX Runtime 1.32: threads that wait are translated too), two processes take as much as one.
    """

    _recruit: Callable[[], EmulatedRunner] | None = None
    _num_helpers = 0
    _helpers: tuple[EmulatedRunner, ...] = ()

    def helped_by(self, recruit: Callable[[], EmulatedRunner], num_helpers: int) -> None:
        """Say how others are started; none is before there is work for it."""
        self._recruit, self._num_helpers = recruit, num_helpers

    def embed(
        self,
        tokens: TokenSequences,
        batching: Batching = DEFAULT_BATCHING,
        progress: Progress = no_progress,
    ) -> FloatArray:
        """Embed texts, as every runner does; who is in a batch with whom is not shared out."""
        wanted = min(self._num_helpers, len(tokens) // FEWEST_TEXTS - 1)
        if wanted < 1 or batching != DEFAULT_BATCHING:
            return super().embed(tokens, batching, progress)
        self._call_in(wanted - len(self._helpers))
        alone = super().embed

        def embed_with(embed: Callable[..., FloatArray]) -> Embed:
            return lambda part, told: embed(part, progress=told)

        embeds = [alone, *(one.embed for one in self._helpers[:wanted])]
        return embed_shared([embed_with(one) for one in embeds], tokens, progress, self.close)

    def _call_in(self, num_more: int) -> None:
        """Start helpers side by side: under QEMU each takes seconds to load."""
        if num_more < 1 or self._recruit is None:
            return
        with ThreadPoolExecutor(num_more) as threads:
            started = [threads.submit(self._recruit) for _ in range(num_more)]
        # Those that did start are kept even where another did not: `close` then ends them.
        found = [one.result() for one in started if one.exception() is None]
        self._helpers = (*self._helpers, *found)
        for one in started:
            one.result()

    def close(self) -> None:
        """End all of them."""
        for one in self._helpers:
            one.close()
        super().close()


class EmulatedDevice:
    """A CPU by name, under QEMU (the contract's `Device`).

    Args:
        cpu: name or alias of a CPU in the hardware table, or "max".
        root: folder of the emulated devices' parts; None: the user's.
        lock: what the parts are made of; None: the lock in use.
        silence_s: a runner that says nothing for this long is ended.

    Raises:
        ConfigError: no such CPU, or QEMU cannot be it.
        NotInstalledError: the parts have not been built; names the command that builds them.
        DeviceError: a part is damaged.
    """

    measures_latency: bool = False

    def __init__(
        self,
        cpu: str,
        *,
        root: Path | None = None,
        lock: UserlandLock | None = None,
        silence_s: float = EMULATED_SILENCE_S,
    ) -> None:
        self._cpu, self._qemu_model = emulated_cpu(cpu)
        self.name = f"{EMULATED}:{self._cpu.name}"
        self._userland = locate_userland(self._cpu.architecture, root=root, lock=lock)
        self._silence_s = silence_s
        self._is_verified = False
        _require_built(self._userland, self.name)

    def hardware(self) -> Hardware:
        """Return the CPU's row of the hardware table, with one core and this machine's memory."""
        import psutil

        row = self._cpu.hardware(1, int(psutil.virtual_memory().total))
        return replace(row, model_name=f"{row.model_name}, {self._emulated_by()}")

    def distributions(self, names: Sequence[str]) -> dict[str, str]:
        """Return the versions of those distributions that are in the userland."""
        return self._userland.distributions(names)

    def start(self, plan: RunPlan, num_threads: int = 1) -> EmulatedTeam:
        """Start a runner under QEMU for one artifact and load it.

        Args:
            plan: what to load; its adapter's runtime must be in the userland.
            num_threads: emulated processes of one thread each; all but the first are started when
                there are texts enough for them.

        Raises:
            ValueError: if `num_threads` is not positive.
            DeviceError: the userland is damaged.
            RunnerFailedError: if the artifact cannot be loaded.
            RunnerCrashedError: if the runner died.
        """
        if num_threads < 1:
            raise ValueError(f"num_threads must be at least 1, not {num_threads}")
        self._verify_once()
        name = f"{self.name} runner for {plan.model.name}"

        def loaded(kind: type[OneRunner]) -> OneRunner:
            runner = self._start_process(name, kind)
            try:
                runner.load(plan)
            except BaseException:
                runner.close()
                raise
            return runner

        team = loaded(EmulatedTeam)
        team.helped_by(lambda: loaded(EmulatedRunner), num_threads - 1)
        return team

    def _verify_once(self) -> None:
        """Compare hashes before the first start: a flipped bit would be taken for drift."""
        if not self._is_verified:
            _require_sound(self._userland, self.name, deep=True)
            self._is_verified = True

    def _start_process(self, name: str, kind: type[OneRunner]) -> OneRunner:
        scratch = make_scratch()
        try:
            command = [
                *self._userland.python(self._qemu_model),
                str(pack_runner(scratch)),
                "--num-threads=1",
                "--unpinned",  # nobody times it, and several devices run side by side
                f"--scratch={scratch}",
            ]
            process = LineProcess(command, scratch, self._userland.environment())
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        return kind(process, scratch, name, self._silence_s, (self._warning(),))

    def _warning(self) -> str:
        return (
            f"{self._emulated_by()}: numbers are those of this CPU's kernels, load time and "
            f"memory are the emulator's, and there is no latency"
        )

    def _emulated_by(self) -> str:
        return f"emulated by QEMU {self._userland.qemu_release}"


def device_names() -> tuple[str, ...]:
    """Return the names of all devices that can be emulated, whether they are set up or not."""
    rows = (*cpu_profiles(), MAX)
    return tuple(f"{EMULATED}:{row.name}" for row in rows if row.qemu_model is not None)


def emulated_cpu(name: str) -> tuple[CpuProfile, str]:
    """Return the CPU of that name or alias, and what QEMU calls it.

    Raises:
        ConfigError: the hardware table has no such CPU, or QEMU cannot be it.
    """
    row = MAX if name == MAX.name else cpu_profile(name)
    if row.qemu_model is not None:
        return row, row.qemu_model
    beyond = sorted(one for one in row.features if one.startswith(_NOT_IN_QEMU))
    raise ConfigError(
        f"device '{EMULATED}:{name}' cannot be emulated",
        why=f"QEMU emulates no {', '.join(beyond)}: it would run as an AVX2 CPU without a word"
        if beyond
        else f"QEMU 10 has no model of {row.name}",
        hint=f"QEMU can be: {', '.join(device_names())}",
    )


def _require_built(userland: Userland, name: str) -> None:
    if not userland.is_built:
        raise NotInstalledError(
            f"device {name} is not set up",
            why=f"QEMU {userland.qemu_release} and its userland for {userland.machine} are not "
            f"in {userland.folder.parent}",
            hint=f"exporter devices setup {name}",
        )
    _require_sound(userland, name, deep=False)


def _require_sound(userland: Userland, name: str, *, deep: bool) -> None:
    damage = userland.damage(deep=deep)
    if damage:
        raise DeviceError(
            f"the files of device {name} are damaged",
            why=f"in {userland.folder.parent}: {damage}",
            hint=f"exporter devices setup {name}",
        )
