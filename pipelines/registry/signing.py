"""Signatures over a manifest, which names the digest of every file: Ed25519, in the files that openssl makes and reads.

openssl genpkey -algorithm ed25519 -out private.pem
openssl pkey -in private.pem -pubout -out public.pem
openssl pkeyutl -verify -rawin -pubin -inkey public.pem -sigfile signatures/ID.sig -in manifest.json
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from alexnet.errors import DataError

_SIGNING_KEY = "ALEXNET_SIGNING_KEY"
_VERIFY_KEY = "ALEXNET_VERIFY_KEY"
_MAKE = (
    "make a pair with `openssl genpkey -algorithm ed25519 -out private.pem` "
    "and `openssl pkey -in private.pem -pubout -out public.pem`"
)
Key = TypeVar("Key", Ed25519PrivateKey, Ed25519PublicKey)


def sign(body: bytes) -> tuple[str, bytes] | None:
    """A key's id and its signature, by the private key whose path is in ALEXNET_SIGNING_KEY; None if that is not set."""
    path = os.environ.get(_SIGNING_KEY)
    if not path:
        return None
    key = _read_key(path, _SIGNING_KEY, "private", _load_private)
    return _key_id(key.public_key()), key.sign(body)


def trusted_key() -> "PublicKey | None":
    """The public key whose path ALEXNET_VERIFY_KEY holds; None if it is not set."""
    path = os.environ.get(_VERIFY_KEY)
    return PublicKey(Path(path)) if path else None


class PublicKey:
    """A key that releases must be signed with."""

    def __init__(self, path: Path) -> None:
        self._key = _read_key(str(path), _VERIFY_KEY, "public", _load_public)
        self.id = _key_id(self._key)

    def verify(self, body: bytes, signature: bytes, where: str) -> None:
        """Raises DataError unless the signature is this key's, over these bytes."""
        try:
            self._key.verify(signature, body)
        except InvalidSignature:
            raise DataError(f"{where}: its signature by key {self.id} is wrong; it was changed, do not use it") from None


def _key_id(key: Ed25519PublicKey) -> str:
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def _read_key(path: str, variable: str, what: str, load: Callable[[bytes], Key]) -> Key:
    try:
        return load(Path(path).read_bytes())
    except OSError as error:
        raise DataError(f"{variable}: {path}: {error.strerror}; {_MAKE}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):  # not shown: the library's text may quote the key
        raise DataError(f"{variable}: {path} is no Ed25519 {what} key in PEM without a password; {_MAKE}") from None


def _load_private(pem: bytes) -> Ed25519PrivateKey:
    key = load_pem_private_key(pem, password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise TypeError(key)
    return key


def _load_public(pem: bytes) -> Ed25519PublicKey:
    key = load_pem_public_key(pem)
    if not isinstance(key, Ed25519PublicKey):
        raise TypeError(key)
    return key
