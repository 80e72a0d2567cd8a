"""Signatures of bundles with a key, by OpenSSF's model-signing: they cover every file.

The signature lies in the bundle as `model.sig`, where that project's own tools look for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from exporter.deliver.folders import staging_name, sync
from exporter.deliver.manifest import SIGNATURE, require_intact
from exporter.deliver.storage import storage_errors
from targets.errors import NotInstalledError, UsageError

PASSWORD_VARIABLE = "EMBEDDING_EXPORTER_KEY_PASSWORD"  # noqa: S105  # a name, not a password
_CURVES = "an elliptic-curve key (P-256, P-384 or P-521) in PEM"


def sign_bundle(bundle: Path, private_key: Path) -> Path:
    """Sign a bundle; an earlier signature is replaced.

    Args:
        bundle: its folder.
        private_key: PEM file; its password, if it has one, is taken from the environment.

    Returns:
        The signature's file, `model.sig` in the bundle.

    Raises:
        NotInstalledError: model-signing is missing.
        UsageError: the key is not one that can sign.
        StorageError: the bundle is not what its manifest says, or cannot be written.
    """
    _require_model_signing()
    from model_signing import hashing, signing

    require_intact(bundle)
    with _key_errors(private_key):
        password = os.environ.get(PASSWORD_VARIABLE)
        config = signing.Config().use_elliptic_key_signer(
            private_key=private_key,
            # It is annotated as text, and handed on to a function that takes bytes only.
            password=password.encode() if password else None,
        )
    place = bundle / SIGNATURE
    staging = place.with_name(staging_name(f".{SIGNATURE}."))
    with storage_errors("cannot write the signature", place, remedy="sign a copy"):
        place.unlink(missing_ok=True)
        config.set_hashing_config(
            hashing.Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)
        )
        try:
            config.sign(bundle, staging)
            sync(staging)
            staging.replace(place)
        finally:
            staging.unlink(missing_ok=True)
    return place


def signature_problem(bundle: Path, public_key: Path) -> str:
    """Say what is wrong with a bundle's signature; "" where it is good.

    Raises:
        NotInstalledError: model-signing is missing.
        UsageError: the key is not one that can verify.
    """
    _require_model_signing()
    from model_signing import verifying

    with _key_errors(public_key):
        config = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    if not (bundle / SIGNATURE).is_file():
        return f"{SIGNATURE}: there is none, the bundle is not signed"
    try:
        config.verify(bundle, bundle / SIGNATURE)
    except Exception as error:  # a forged file may break whatever reads it, in any way
        reason = str(error) or "it was not made with this key, or was changed"
        return f"{SIGNATURE}: {reason.strip()}"
    return ""


def _require_model_signing() -> None:
    try:
        import model_signing  # noqa: F401
    except ImportError as error:
        raise NotInstalledError(
            "signatures need the package model-signing",
            why=str(error),
            hint="pip install 'embedding-exporter[sign]'",
        ) from error


@contextmanager
def _key_errors(path: Path) -> Iterator[None]:
    """Say what is wrong with a key file; the library says it of the key's bytes only."""
    try:
        yield
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path} is not a key that can be used",
            why=str(error),
            hint=f"give {_CURVES}; a password goes into {PASSWORD_VARIABLE}",
        ) from error
