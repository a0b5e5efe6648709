"""Signatures over a manifest, which names the digest of every file: Ed25519, in the files that openssl makes and reads.

openssl genpkey -algorithm ed25519 -out private.pem
openssl pkey -in private.pem -pubout -out public.pem
openssl pkeyutl -verify -rawin -pubin -inkey public.pem -sigfile signatures/ID.sig -in manifest.json
"""

import hashlib
import os
from pathlib import Path

from alexnet.errors import DataError

_SIGNING_KEY = "ALEXNET_SIGNING_KEY"
_VERIFY_KEY = "ALEXNET_VERIFY_KEY"
_MAKE = "make one with `openssl genpkey -algorithm ed25519 -out private.pem`"


def sign(body: bytes) -> tuple[str, bytes] | None:
    """A key's id and its signature, by the private key whose path is in ALEXNET_SIGNING_KEY; None if that is not set."""
    path = os.environ.get(_SIGNING_KEY)
    if not path:
        return None
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    pem = _read(path, _SIGNING_KEY)
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # the library's own text is not shown: it may quote the key
        raise DataError(f"{_SIGNING_KEY}: {path} is no private key in PEM without a password; {_MAKE}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise DataError(f"{_SIGNING_KEY}: {path} is not an Ed25519 key; {_MAKE}")
    return _key_id(key.public_key().public_bytes_raw()), key.sign(body)


def trusted_key() -> "PublicKey | None":
    """The public key whose path ALEXNET_VERIFY_KEY holds; None if it is not set."""
    path = os.environ.get(_VERIFY_KEY)
    return PublicKey(Path(path)) if path else None


class PublicKey:
    """A key that releases must be signed with."""

    def __init__(self, path: Path) -> None:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        advice = "give the public half: `openssl pkey -in private.pem -pubout -out public.pem`"
        pem = _read(str(path), _VERIFY_KEY)
        try:
            key = load_pem_public_key(pem)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise DataError(f"{_VERIFY_KEY}: {path} is no public key in PEM; {advice}") from None
        if not isinstance(key, Ed25519PublicKey):
            raise DataError(f"{_VERIFY_KEY}: {path} is not an Ed25519 key; {advice}")
        self._key = key
        self.id = _key_id(key.public_bytes_raw())

    def verify(self, body: bytes, signature: bytes, where: str) -> None:
        """Raises DataError unless the signature is this key's, over just these bytes."""
        from cryptography.exceptions import InvalidSignature

        try:
            self._key.verify(signature, body)
        except InvalidSignature:
            raise DataError(f"{where}: its signature by key {self.id} is wrong; it was changed, do not use it") from None


def _key_id(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()[:16]


def _read(path: str, variable: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{variable}: {path}: {error.strerror}; {_MAKE}") from None
