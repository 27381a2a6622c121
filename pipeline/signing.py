"""Who made a file: Ed25519 keys, detached signatures, and whom a station trusts.

A signature lies beside what it signs as a small JSON page. What is signed begins with a context, so
that a signature of one kind of file is never valid for another (RFC 8032; one key may sign both).
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import BundleError, ConfigError
from pipeline.limits import json_of, read_bounded
from pipeline.plugins import vendor

BUNDLE = b"lineguard bundle manifest 1\0"
"""Context of a model bundle's manifest."""

MAX_KEY_BYTES = 16 << 10
MAX_SIGNATURE_BYTES = 4 << 10


class SignaturePage(BaseModel):
    """What a signature file holds; ``key`` is the id of the public key."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    algorithm: Literal["ed25519"] = "ed25519"
    key: str = Field(pattern="^[0-9a-f]{16}$")
    signature: str = Field(min_length=88, max_length=88)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that signatures are checked with.

    Attributes:
        id: the first 16 hexadecimal digits of the SHA-256 of its 32 bytes.
        raw: the 32 bytes.
    """

    id: str
    raw: bytes

    def accepts(self, signature: bytes, message: bytes) -> bool:
        """Tell whether this key's owner signed the message."""
        ed25519, invalid = _library()
        try:
            ed25519.Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except (invalid, ValueError):
            return False
        return True


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose bundles a station runs.

    Attributes:
        keys: a bundle must be signed by the owner of one of these.
        unsigned: a bundle without a signature is taken all the same; one whose signature is wrong
            never is.
    """

    keys: tuple[PublicKey, ...]
    unsigned: bool = False


def generate(private: Path, public: Path) -> PublicKey:
    """Make a key pair: two PEM files, the private one readable by its owner alone.

    Raises:
        ConfigError: one of the files exists already, or cannot be written.
        MissingExtra: the package ``cryptography`` is not installed.
    """
    serialization = vendor("cryptography.hazmat.primitives.serialization", "signing")
    key = _library()[0].Ed25519PrivateKey.generate()
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    shown = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    _write_new(public, shown, 0o644)
    try:
        _write_new(private, secret, 0o600)
    except ConfigError:
        public.unlink()  # a key without its twin would only confuse
        raise
    return _public(key.public_key())


def read_public_key(file: Path) -> PublicKey:
    """Read a public key from a PEM file.

    Raises:
        ConfigError: it is no Ed25519 public key.
    """
    serialization = vendor("cryptography.hazmat.primitives.serialization", "signing")
    key = _parsed(file, serialization.load_pem_public_key, "public")
    if not isinstance(key, _library()[0].Ed25519PublicKey):
        raise ConfigError(f"{file}: not an Ed25519 public key; make one: lineguard models keygen")
    return _public(key)


def read_trust(keys: Sequence[Path], unsigned: bool = False) -> Trust:
    """Read the public keys of those whose bundles are to run."""
    return Trust(tuple(read_public_key(file) for file in keys), unsigned)


def sign(message: bytes, private: Path, context: bytes) -> bytes:
    """Return the signature page, JSON, of a message.

    Raises:
        ConfigError: the private key cannot be read, or others than its owner may read it too.
    """
    serialization = vendor("cryptography.hazmat.primitives.serialization", "signing")
    _check_private(private)
    key = _parsed(
        private, lambda data: serialization.load_pem_private_key(data, password=None), "private"
    )
    if not isinstance(key, _library()[0].Ed25519PrivateKey):
        raise ConfigError(f"{private}: not an Ed25519 private key; see: lineguard models keygen")
    page = SignaturePage(
        key=_public(key.public_key()).id,
        signature=base64.b64encode(key.sign(context + message)).decode("ascii"),
    )
    return _bytes_of(page)


def _bytes_of(page: SignaturePage) -> bytes:
    return (json.dumps(page.model_dump(), indent=1) + "\n").encode()


def signer(message: bytes, page: bytes, trust: Trust, context: bytes) -> PublicKey:
    """Return the trusted key that signed a message.

    Raises:
        BundleError: the page is no signature, its key is not trusted, or it does not fit.
    """
    try:
        said = SignaturePage.model_validate(json_of(page))
        signature = base64.b64decode(said.signature, validate=True)
        # One signature has one form: else a damaged page could still pass.
        if base64.b64encode(signature).decode() != said.signature or _bytes_of(said) != page:
            raise ValueError("not in the form that lineguard writes")
    except (ValueError, RecursionError) as error:
        raise BundleError(f"not a signature: {_one_line(error)}") from error
    key = next((key for key in trust.keys if key.id == said.key), None)
    if key is None:
        known = ", ".join(key.id for key in trust.keys) or "none"
        raise BundleError(
            f"signed with the key {said.key}, which this station does not trust ({known}); "
            "name its public key in model.trust.keys if you do"
        )
    if not key.accepts(signature, context + message):
        raise BundleError(
            f"its signature by the key {key.id} does not fit: the file was changed after it was "
            "signed; restore it, or have it signed again"
        )
    return key


def bundle_signer(file: Path, manifest: bytes, trust: Trust) -> str | None:
    """Return the id of the trusted key that signed a bundle; None if nobody did, which is allowed.

    Args:
        file: the signature, beside the manifest.
        manifest: the bytes that were signed.

    Raises:
        BundleError: there is no signature and there must be one, or it is not good.
    """
    path = file.parent
    if not file.exists() and not file.is_symlink():
        if trust.unsigned:
            return None
        raise BundleError(
            f"{path}: this bundle is not signed, and the station runs signed ones only; have it "
            "signed with: lineguard models sign"
        )
    try:
        page = read_bounded(file, MAX_SIGNATURE_BYTES)
    except (OSError, ValueError) as error:
        raise BundleError(f"{file}: {_one_line(error)}") from error
    try:
        return signer(manifest, page, trust, BUNDLE).id
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from error


def _library() -> tuple[Any, type[Exception]]:
    """Return the module of Ed25519 and what it raises for a wrong signature."""
    ed25519 = vendor("cryptography.hazmat.primitives.asymmetric.ed25519", "signing")
    return ed25519, vendor("cryptography.exceptions", "signing").InvalidSignature


def _public(key: Any) -> PublicKey:
    raw = key.public_bytes_raw()
    return PublicKey(hashlib.sha256(raw).hexdigest()[:16], raw)


def _parsed(file: Path, parse: Any, kind: str) -> Any:
    try:
        return parse(read_bounded(file, MAX_KEY_BYTES))
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; it should be a {kind} key") from error
    except (ValueError, TypeError) as error:  # TypeError: it is encrypted
        raise ConfigError(
            f"{file}: not a {kind} key in PEM without passphrase ({_one_line(error)})"
        ) from error
    except _unsupported() as error:
        raise ConfigError(f"{file}: not an Ed25519 key ({_one_line(error)})") from error


def _unsupported() -> type[Exception]:
    kind: type[Exception] = vendor("cryptography.exceptions", "signing").UnsupportedAlgorithm
    return kind


def _check_private(file: Path) -> None:
    try:
        mode = file.stat().st_mode
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; name the private key") from error
    if mode & 0o077:
        raise ConfigError(f"{file}: others may read this private key; mend with: chmod 600 {file}")


def _write_new(file: Path, data: bytes, mode: int) -> None:
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
    except FileExistsError as error:
        raise ConfigError(f"{file}: there is a file already; a key is never overwritten") from error
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; cannot write the key") from error


def _one_line(error: BaseException) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_input=False)[0]
        return f"{'.'.join(str(p) for p in first['loc']) or 'page'}: {first['msg']}"
    return " ".join(str(error).split())[:200]
