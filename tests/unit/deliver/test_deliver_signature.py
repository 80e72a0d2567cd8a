"""Signatures with real keys: who signed is proven, and a change of any file is found."""

import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from deliver_records import RECORD

from exporter.cli.app import run
from exporter.deliver.archive import pack_bundle, unpack_bundle
from exporter.deliver.bundle import BundleWriter, check_output
from exporter.deliver.manifest import MANIFEST, SIGNATURE, facts_of, verify_bundle
from exporter.deliver.signature import PASSWORD_VARIABLE, sign_bundle, signature_problem
from targets.errors import ExitCode, NotInstalledError, StorageError, UsageError

pytest.importorskip("model_signing", reason="pip install 'embedding-exporter[sign]'")

PASSWORD = "a word between us"


def write_key(folder: Path, name: str, password: str | None = None, curve: str = "SECP256R1"):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(getattr(ec, curve)())
    protection = (
        serialization.BestAvailableEncryption(password.encode())
        if password
        else serialization.NoEncryption()
    )
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(pem, pkcs8, protection))
    info = serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(pem, info))
    return private, public


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    write_key(folder, "ours")
    write_key(folder, "theirs")
    write_key(folder, "locked", PASSWORD)
    write_key(folder, "odd", curve="SECP256K1")
    return folder


@pytest.fixture
def bundle(tmp_path) -> Path:
    with BundleWriter(tmp_path / "out") as writer:
        writer.add_bytes(b"graph", "onnx/model.onnx")
        writer.add_bytes(b"{}", "config.json")
        writer.commit(facts_of(RECORD))
    return tmp_path / "out"


@pytest.fixture
def signed(bundle, keys) -> Path:
    sign_bundle(bundle, keys / "ours.pem")
    return bundle


def test_a_signed_bundle_is_good_and_still_a_bundle(signed, keys):
    assert signature_problem(signed, keys / "ours.pub") == ""
    assert verify_bundle(signed) == ()
    assert check_output(signed) == signed, "a new export may take its place"
    assert not list(signed.glob(".*"))


def test_another_key_did_not_sign_it(signed, keys):
    assert "Key mismatch" in signature_problem(signed, keys / "theirs.pub")


def test_signing_again_takes_the_earlier_signature_s_place(signed, keys):
    sign_bundle(signed, keys / "theirs.pem")
    assert signature_problem(signed, keys / "theirs.pub") == ""
    assert signature_problem(signed, keys / "ours.pub") != ""


def test_an_unsigned_bundle_says_so(bundle, keys):
    assert "is not signed" in signature_problem(bundle, keys / "ours.pub")


@pytest.mark.parametrize("name", ["onnx/model.onnx", "config.json", MANIFEST])
def test_a_changed_file_breaks_the_signature(name, signed, keys):
    """Also where the manifest was made to fit: that is what a signature is for."""
    (signed / name).write_bytes((signed / name).read_bytes() + b" ")
    assert name in signature_problem(signed, keys / "ours.pub")


@pytest.mark.parametrize("name", ["more.json", ".gitignore"])
def test_an_additional_file_is_refused(name, signed, keys, capsys):
    (signed / name).write_text("{}")
    assert run(["check", str(signed), "--public-key", str(keys / "ours.pub")]) == 1
    assert f"FAIL {name}: there, but not listed" in capsys.readouterr().out


def test_a_missing_file_is_refused(signed, keys):
    (signed / "config.json").unlink()
    assert "config.json" in signature_problem(signed, keys / "ours.pub")


def forged(signed: Path, **changes: object) -> None:
    """Change what was signed and keep the signature of it."""
    path = signed / SIGNATURE
    document = json.loads(path.read_text())
    payload = json.loads(base64.b64decode(document["dsseEnvelope"]["payload"]))
    payload |= changes
    encoded = base64.b64encode(json.dumps(payload).encode()).decode()
    document["dsseEnvelope"]["payload"] = encoded
    path.write_text(json.dumps(document))


def test_a_forged_statement_is_refused(signed, keys):
    forged(signed, extra="claim")
    assert "not made with this key, or was changed" in signature_problem(signed, keys / "ours.pub")


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff\x00", b'{"dsseEnvelope": {}}', b"[]"])
def test_a_damaged_signature_is_refused(data, signed, keys):
    (signed / SIGNATURE).write_bytes(data)
    assert signature_problem(signed, keys / "ours.pub").startswith(SIGNATURE)


def test_a_linked_signature_is_not_the_bundle_s(signed, tmp_path):
    (signed / SIGNATURE).rename(tmp_path / "elsewhere.sig")
    (signed / SIGNATURE).symlink_to(tmp_path / "elsewhere.sig")
    assert [(one.path, one.kind) for one in verify_bundle(signed)] == [(SIGNATURE, "unsafe")]


def test_a_changed_bundle_is_not_signed(bundle, keys):
    (bundle / "config.json").write_text("[]")
    with pytest.raises(StorageError, match="not what its manifest says"):
        sign_bundle(bundle, keys / "ours.pem")
    assert not (bundle / SIGNATURE).exists()


# --------------------------------------------------------------------------------- keys


def test_a_key_with_a_password(bundle, keys, monkeypatch):
    with pytest.raises(UsageError, match="not a key") as caught:
        sign_bundle(bundle, keys / "locked.pem")
    assert PASSWORD_VARIABLE in caught.value.hint
    monkeypatch.setenv(PASSWORD_VARIABLE, "a wrong word")
    with pytest.raises(UsageError, match="not a key"):
        sign_bundle(bundle, keys / "locked.pem")
    monkeypatch.setenv(PASSWORD_VARIABLE, PASSWORD)
    sign_bundle(bundle, keys / "locked.pem")
    assert signature_problem(bundle, keys / "locked.pub") == ""


@pytest.mark.parametrize("name", ["ours.pub", "odd.pem", "none.pem"])
def test_what_cannot_sign_is_usage(name, bundle, keys):
    with pytest.raises(UsageError, match="is not a key that can be used"):
        sign_bundle(bundle, keys / name)


@pytest.mark.parametrize("name", ["ours.pem", "odd.pub", "none.pub"])
def test_what_cannot_verify_is_usage(name, signed, keys):
    with pytest.raises(UsageError, match="is not a key that can be used"):
        signature_problem(signed, keys / name)


def test_without_the_package_the_extra_is_named(bundle, keys, monkeypatch):
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(NotInstalledError) as caught:
        sign_bundle(bundle, keys / "ours.pem")
    assert "[sign]" in caught.value.hint


# --------------------------------------------------------------------------- the commands


def test_the_commands_sign_and_check(bundle, keys, tmp_path, capsys):
    assert run(["sign", str(bundle), "--key", str(keys / "ours.pem")]) == ExitCode.PASS
    assert run(["check", str(bundle)]) == ExitCode.PASS
    assert "its signature was not checked" in capsys.readouterr().out
    assert run(["check", str(bundle), "--public-key", str(keys / "ours.pub")]) == ExitCode.PASS
    assert "signed with the key of" in capsys.readouterr().out
    assert run(["check", str(bundle), "--public-key", str(keys / "theirs.pub")]) == 1
    assert "FAIL model.sig: Key mismatch" in capsys.readouterr().out


def test_an_archive_keeps_the_signature(signed, keys, tmp_path):
    archive = tmp_path / "a.tar.zst"
    pack_bundle(signed, archive)
    assert run(["check", str(archive), "--public-key", str(keys / "ours.pub")]) == ExitCode.PASS
    unpack_bundle(archive, tmp_path / "back")
    assert signature_problem(tmp_path / "back", keys / "ours.pub") == ""


def test_openssf_s_own_command_verifies_it(signed, keys):
    """Whoever gets the bundle needs nothing of ours to know who made it."""
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(signed)]
    command += ["--signature", str(signed / SIGNATURE), "--public_key", str(keys / "ours.pub")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (signed / "config.json").write_text("[]")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0


def test_copies_are_independent_of_the_folder_s_name(signed, keys, tmp_path):
    shutil.copytree(signed, tmp_path / "renamed")
    assert signature_problem(tmp_path / "renamed", keys / "ours.pub") == ""
