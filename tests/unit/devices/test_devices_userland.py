"""Setting an emulated device up: real tools on tiny packages, and everything that can go wrong."""

from __future__ import annotations

import platform
import shutil
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from debian_mirror import FAILS, Mirror, build_mirror

from targets.contract import Device
from targets.devices import userland_renewal
from targets.devices.catalogue import describe_devices, set_up_device
from targets.devices.emulated import EmulatedDevice
from targets.devices.userland import locate_userland
from targets.devices.userland_debian import APT_HELPER, debian_mirrors
from targets.devices.userland_lock import write_lock
from targets.devices.userland_renewal import SUITES, renew_lock
from targets.devices.userland_setup import download_bytes, set_up_userland
from targets.errors import (
    DeviceError,
    ExitCode,
    NotInstalledError,
    RunnerFailedError,
    StorageError,
)

NAME = "emulated:neoverse-n1"
on_debian = pytest.mark.skipif(
    not (APT_HELPER.is_file() and shutil.which("dpkg-deb") and platform.machine() == "x86_64"),
    reason="needs Debian's apt and dpkg on x86_64",
)


@pytest.fixture(scope="session")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Mirror:
    codename = platform.freedesktop_os_release()["VERSION_CODENAME"]
    return build_mirror(tmp_path_factory.mktemp("mirror"), codename)


@pytest.fixture
def offline(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> Mirror:
    for name, value in mirror.variables().items():
        monkeypatch.setenv(name, value)
    return mirror


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "devices"


@pytest.fixture(scope="session")
def built(mirror: Mirror, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root that is set up, to be copied."""
    folder = tmp_path_factory.mktemp("built") / "devices"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in mirror.variables().items():
            patch.setenv(name, value)
        set_up_userland("aarch64", root=folder, lock=mirror.lock)
    return folder


@pytest.fixture
def copied(built: Path, root: Path) -> Path:
    return shutil.copytree(built, root, symlinks=True)


def left_in(root: Path) -> list[str]:
    """What a set-up left behind, without its lock files."""
    return sorted(path.name for path in root.iterdir() if not path.name.endswith(".lock"))


@on_debian
def test_apt_itself_says_where_debian_is(offline):
    assert debian_mirrors() == (f"copy:{offline.folder}/",)


@on_debian
def test_a_set_up_builds_everything_once(offline, root):
    titles, counts = [], []

    @contextmanager
    def step(title):
        titles.append(title)
        yield lambda done, total=None: counts.append((done, total))

    userland = set_up_userland("aarch64", root=root, lock=offline.lock, step=step)
    assert [title.split(",")[0] for title in titles] == [
        "QEMU 10.0.2",
        "Debian packages for arm64",
        "Python wheels for arm64",
        "first run on arm64",
    ]
    assert (1, 1) in counts
    assert userland.qemu.name == "qemu-aarch64"
    assert not (userland.emulator / "usr/bin/qemu-s390x").exists()
    assert (userland.sysroot / "lib/libtiny.so.1").read_text() == "library"
    assert (userland.sysroot / "etc/ld.so.cache").read_bytes() == b""
    assert (userland.site_packages / "tiny/extra.py").is_file()
    assert userland.distributions(["tiny", "numpy"]) == {"tiny": "1.5"}

    again = []
    set_up_userland("aarch64", root=root, lock=offline.lock, step=lambda title: again.append(title))
    assert again == []


@on_debian
def test_absolute_links_stay_inside(offline, copied):
    sysroot = locate_userland("aarch64", root=copied, lock=offline.lock).sysroot
    link = sysroot / "usr/lib/libtiny.so"
    assert not link.readlink().is_absolute()
    assert link.resolve() == sysroot.resolve() / "usr/lib/libtiny.so.1"


@on_debian
def test_every_name_of_a_library_finds_the_userland_s_own(offline, copied):
    """Debian 12's packages use /lib or /usr/lib; the loader tries both, and then the host's."""
    sysroot = locate_userland("aarch64", root=copied, lock=offline.lock).sysroot
    for name in ("lib/libtiny.so", "usr/lib/libtiny.so", "lib/libtiny.so.1"):
        assert (sysroot / name).read_text() == "library"


@on_debian
def test_architectures_share_the_emulator(offline, copied):
    set_up_userland("x86_64", root=copied, lock=offline.lock)
    kinds = [name.rsplit("-", 1)[0] for name in left_in(copied)]
    assert kinds == ["qemu-amd64", "userland-amd64", "userland-arm64"]


@on_debian
@pytest.mark.parametrize("kind", ["packages", "wheels"])
def test_another_file_than_the_locked_one_is_refused(offline, root, kind):
    lock = offline.relock(kind=kind, sha256="0" * 64)
    with pytest.raises(StorageError) as caught:
        set_up_userland("aarch64", root=root, lock=lock)
    assert getattr(lock, kind)["arm64"][0].file_name in caught.value.what
    assert "0000, the lock says" not in caught.value.why
    assert "the lock says 0000" in caught.value.why
    assert "exporter devices lock" in caught.value.hint
    assert [name.split("-")[0] for name in left_in(root)] == ["qemu"]


@on_debian
def test_a_version_that_the_mirror_has_no_more_is_named(offline, root):
    lock = offline.relock(kind="packages", path="pool/libtiny1_0.9.deb")
    with pytest.raises(DeviceError) as caught:
        set_up_userland("aarch64", root=root, lock=lock)
    assert caught.value.what == "libtiny1: not downloaded"
    assert "libtiny1_0.9.deb" in caught.value.why
    assert "exporter devices lock FILE" in caught.value.hint
    assert [name.split("-")[0] for name in left_in(root)] == ["qemu"]


@on_debian
def test_other_repositories_with_debian_s_suite_name_do_no_harm(offline, tmp_path, root):
    codename = platform.freedesktop_os_release()["VERSION_CODENAME"]
    sources = offline.folder / "sources.list"
    before = sources.read_text()
    sources.write_text(f"deb [trusted=yes] copy:{tmp_path} {codename} main\n{before}")
    try:
        assert len(debian_mirrors()) == 2
        set_up_userland("aarch64", root=root, lock=offline.lock)
    finally:
        sources.write_text(before)


@on_debian
def test_a_wheel_that_the_index_has_no_more_is_named(offline, root):
    lock = offline.relock(kind="wheels", version="1.4")
    with pytest.raises(DeviceError, match=r"pip cannot download tiny==1\.4 for aarch64"):
        set_up_userland("aarch64", root=root, lock=lock)


@on_debian
def test_a_userland_that_does_not_run_is_not_kept(tmp_path, root, monkeypatch):
    codename = platform.freedesktop_os_release()["VERSION_CODENAME"]
    broken = build_mirror(tmp_path / "broken", codename, qemu=FAILS)
    for name, value in broken.variables().items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RunnerFailedError, match="does not run") as caught:
        set_up_userland("aarch64", root=root, lock=broken.lock)
    assert caught.value.why == "Illegal instruction"
    assert [name.split("-")[0] for name in left_in(root)] == ["qemu"]


def test_without_debian_s_tools_it_says_so(monkeypatch, root):
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: {"PRETTY_NAME": "Fedora 42"})
    with pytest.raises(NotInstalledError, match="made of Debian packages") as caught:
        set_up_userland("aarch64", root=root)
    assert "Fedora 42" in caught.value.why
    assert "ssh://" in caught.value.hint


@on_debian
def test_apt_without_a_debian_source_says_so(offline, tmp_path, monkeypatch, root):
    config = tmp_path / "apt.conf"
    config.write_text('Dir::Etc::sourcelist "/dev/null";\nDir::Etc::sourceparts "/dev/null";\n')
    monkeypatch.setenv("APT_CONFIG", str(config))
    with pytest.raises(NotInstalledError, match="knows no mirror"):
        set_up_userland("aarch64", root=root, lock=offline.lock)


@pytest.mark.parametrize(("system", "machine"), [("Darwin", "arm64"), ("Linux", "riscv64")])
def test_a_machine_without_an_emulator_says_so(monkeypatch, root, system, machine):
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    with pytest.raises(NotInstalledError, match=f"emulated on {system} {machine}"):
        locate_userland("aarch64", root=root)


@on_debian
def test_an_old_qemu_is_refused_with_the_reason(mirror, root):
    old = {name: replace(one, version="1:7.2+dfsg-7") for name, one in mirror.lock.qemu.items()}
    with pytest.raises(NotInstalledError, match=r"QEMU 7\.2 is too old") as caught:
        EmulatedDevice("neoverse-n1", root=root, lock=replace(mirror.lock, qemu=old))
    assert "miscomputes" in caught.value.why


# ------------------------------------------------------------------ before and after the set-up


@on_debian
def test_a_device_that_is_not_set_up_names_the_command(mirror, root):
    with pytest.raises(NotInstalledError) as caught:
        EmulatedDevice("neoverse-n1", root=root, lock=mirror.lock)
    assert caught.value.hint == f"exporter devices setup {NAME}"
    assert "QEMU 10.0.2" in caught.value.why
    assert caught.value.exit_code == ExitCode.USAGE
    assert not root.exists()  # asking builds nothing


@on_debian
def test_without_the_emulator_alone_it_names_the_command_too(mirror, copied):
    shutil.rmtree(locate_userland("aarch64", root=copied, lock=mirror.lock).emulator)
    with pytest.raises(NotInstalledError, match="is not set up"):
        EmulatedDevice("neoverse-n1", root=copied, lock=mirror.lock)


@on_debian
def test_a_device_that_is_set_up_keeps_the_contract(mirror, copied):
    device = EmulatedDevice("graviton2", root=copied, lock=mirror.lock)
    assert isinstance(device, Device)
    assert device.name == NAME
    assert device.measures_latency is False
    assert device.distributions(["tiny"]) == {"tiny": "1.5"}
    hardware = device.hardware()
    assert (hardware.architecture, hardware.num_cores) == ("aarch64", 1)
    assert "asimddp" in hardware.features
    assert hardware.model_name == "neoverse-n1, emulated by QEMU 10.0.2"
    assert hardware.memory_bytes > 0


@on_debian
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_text("libr"), "has 4 bytes, not 7"),
    ],
)
def test_a_damaged_userland_is_noticed_at_once_and_mended(offline, copied, spoil, said):
    userland = locate_userland("aarch64", root=copied, lock=offline.lock)
    spoil(userland.sysroot / "lib/libtiny.so.1")
    with pytest.raises(DeviceError, match="are damaged") as caught:
        EmulatedDevice("neoverse-n1", root=copied, lock=offline.lock)
    assert said in caught.value.why
    assert caught.value.hint == f"exporter devices setup {NAME}"
    assert set_up_device(NAME, root=copied, lock=offline.lock) == copied
    EmulatedDevice("neoverse-n1", root=copied, lock=offline.lock)


@on_debian
def test_a_flipped_bit_is_noticed_before_anything_runs(mirror, copied):
    device = EmulatedDevice("neoverse-n1", root=copied, lock=mirror.lock)
    userland = locate_userland("aarch64", root=copied, lock=mirror.lock)
    (userland.sysroot / "lib/libtiny.so.1").write_text("librarz")
    with pytest.raises(DeviceError, match="are damaged") as caught:
        device.start(plan=None)
    assert "has another content" in caught.value.why


@on_debian
def test_the_catalogue_says_what_each_device_takes(offline, copied, root, monkeypatch, tmp_path):
    lock_file = tmp_path / "lock.json"
    write_lock(offline.lock, lock_file)
    monkeypatch.setenv("EMBEDDING_EXPORTER_USERLAND_LOCK", str(lock_file))
    rows = {row.name: row for row in describe_devices(root=copied)}
    assert rows["local"].is_ready
    assert rows["local"].latency == "real"
    assert rows["local:avx2"].latency == "relative"
    assert rows[NAME].is_ready
    assert rows[NAME].latency == "none"
    megabytes = download_bytes("x86_64", root=copied) / 1e6
    assert rows["emulated:haswell"].state == (
        f"exporter devices setup emulated:haswell ({megabytes:.0f} MB to download)"
    )
    userland = locate_userland("aarch64", root=copied)
    (userland.sysroot / "lib/libtiny.so.1").unlink()
    rows = {row.name: row for row in describe_devices(root=copied)}
    assert rows[NAME].state.startswith("damaged (sysroot/usr/lib/libtiny.so.1 is missing)")


@on_debian
def test_what_is_there_is_not_downloaded_again(mirror, copied, tmp_path):
    everything = download_bytes("aarch64", root=tmp_path / "none", lock=mirror.lock)
    assert download_bytes("aarch64", root=copied, lock=mirror.lock) == 0 < everything
    emulator = mirror.lock.qemu["amd64"].size_bytes
    rest = download_bytes("x86_64", root=copied, lock=mirror.lock)
    assert download_bytes("x86_64", root=tmp_path / "none", lock=mirror.lock) == rest + emulator


# ---------------------------------------------------------------------------- renewing the lock


@on_debian
@pytest.mark.parametrize("release", ["Suite: x\nCodename: {suite}\nSHA256:\n", ""])
def test_package_lists_that_nobody_signed_are_refused(offline, tmp_path, release):
    for suite in SUITES.values():
        place = offline.folder / "dists" / suite
        place.mkdir(parents=True, exist_ok=True)
        for name in ("InRelease", "Release"):
            (place / name).write_text(release.format(suite=suite))
    output = tmp_path / "lock.json"
    with pytest.raises(DeviceError, match="apt-get") as caught:
        renew_lock(output)
    assert "is not signed" in caught.value.why or "NOSPLIT" in caught.value.why
    assert not output.exists()
    shutil.rmtree(offline.folder / "dists")


@on_debian
def test_without_debian_s_keys_nothing_is_believed(monkeypatch, tmp_path):
    monkeypatch.setattr(userland_renewal, "KEYRING", tmp_path / "absent.gpg")
    with pytest.raises(NotInstalledError) as caught:
        renew_lock(tmp_path / "lock.json")
    assert "debian-archive-keyring" in caught.value.hint
