"""Signatures over a release, by the kind of the key.

An Ed25519 key signs the bytes of manifest.json, which names the digest of every file, as openssl does and checks:

openssl genpkey -algorithm ed25519 -out private.pem
openssl pkey -in private.pem -pubout -out public.pem
openssl pkeyutl -verify -rawin -pubin -inkey public.pem -sigfile signatures/ID.sig -in manifest.json

An elliptic curve key (P-256, P-384, P-521) signs as OpenSSF Model Signing does: a Sigstore bundle on all files:

openssl ecparam -name prime256v1 -genkey -noout -out private.pem
openssl ec -in private.pem -pubout -out public.pem
model_signing verify key DIR --signature DIR/signatures/ID.sig --public_key public.pem
"""

import base64
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key, load_pem_public_key

from alexnet.errors import DataError
from alexnet.files.strict import loads, read_bytes
from pipelines.registry.release import MANIFEST, SIGNATURES, Release

_SIGNING_KEY = "ALEXNET_SIGNING_KEY"
_VERIFY_KEY = "ALEXNET_VERIFY_KEY"
_MAKE = (
    "make a pair with `openssl genpkey -algorithm ed25519 -out private.pem` "
    "and `openssl pkey -in private.pem -pubout -out public.pem`"
)
_HASHES: dict[str, hashes.HashAlgorithm] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}
_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD = "application/vnd.in-toto+json"
Private = Ed25519PrivateKey | ec.EllipticCurvePrivateKey
Public = Ed25519PublicKey | ec.EllipticCurvePublicKey
Key = TypeVar("Key", Private, Public)


def sign(body: bytes) -> tuple[str, bytes] | None:
    """A key's id and its signature of bytes, by the private key in ALEXNET_SIGNING_KEY's file; None if that is not set."""
    key = _signing_key()
    return (_key_id(key.public_key()), _sign(key, body)) if key else None


def sign_release(release: Release) -> tuple[str, bytes] | None:
    """The same of a release: a Sigstore bundle by an elliptic curve key, the signature of its manifest by an Ed25519 key."""
    key = _signing_key()
    if key is None:
        return None
    public = key.public_key()
    body = _sign(key, release.manifest()) if isinstance(public, Ed25519PublicKey) else _bundle(key, release)
    return _key_id(public), body


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
        """Raises DataError unless it is this key's signature of these bytes, or its bundle on files that include them."""
        try:
            # The key tells, not the content: signatures of Ed25519 begin with any byte, those of elliptic curves with 0x30.
            if not isinstance(self._key, Ed25519PublicKey) and signature.startswith(b"{"):
                self._verify_bundle(body, loads(signature))
            else:
                self._verify(body, signature)
        except (InvalidSignature, ValueError, KeyError, TypeError, IndexError):
            raise DataError(f"{where}: its signature by key {self.id} is wrong; it was changed, do not use it") from None

    def _verify(self, body: bytes, signature: bytes) -> None:
        if isinstance(self._key, Ed25519PublicKey):
            self._key.verify(signature, body)
        else:
            self._key.verify(signature, body, ec.ECDSA(_HASHES[self._key.curve.name]))

    def _verify_bundle(self, manifest: bytes, bundle: Any) -> None:
        envelope = bundle["dsseEnvelope"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        self._verify(_enveloped(payload), base64.b64decode(envelope["signatures"][0]["sig"], validate=True))
        digests = {each["name"]: each["digest"] for each in loads(payload)["predicate"]["resources"]}
        if envelope["payloadType"] != _PAYLOAD or digests[MANIFEST] != hashlib.sha256(manifest).hexdigest():
            raise ValueError(MANIFEST)


def _bundle(key: Private, release: Release) -> bytes:
    """As `model_signing sign key` writes it: an in-toto statement on every file but the signatures, in a DSSE envelope."""
    digests = {path: file.sha256 for path, file in release.files.items()} | {
        MANIFEST: hashlib.sha256(release.manifest()).hexdigest()
    }
    paths = sorted(digests)
    whole = hashlib.sha256(b"".join(bytes.fromhex(digests[path]) for path in paths)).hexdigest()
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": release.name, "digest": {"sha256": whole}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": [SIGNATURES]},
            "resources": [{"name": path, "algorithm": "sha256", "digest": digests[path]} for path in paths],
        },
    }
    payload = json.dumps(statement, sort_keys=True).encode()
    bundle = {
        "mediaType": _BUNDLE,
        "verificationMaterial": {"publicKey": {"hint": hashlib.sha256(_pem(key.public_key())).hexdigest()}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": _PAYLOAD,
            "signatures": [{"sig": base64.b64encode(_sign(key, _enveloped(payload))).decode(), "keyid": ""}],
        },
    }
    return json.dumps(bundle, sort_keys=True).encode()


def _enveloped(payload: bytes) -> bytes:
    """What an envelope's signature is over: DSSE's pre-authentication encoding."""
    return f"DSSEv1 {len(_PAYLOAD)} {_PAYLOAD} {len(payload)} ".encode() + payload


def _sign(key: Private, body: bytes) -> bytes:
    """Equal bytes by equal keys have equal signatures."""
    if isinstance(key, Ed25519PrivateKey):
        return key.sign(body)
    return key.sign(body, ec.ECDSA(_HASHES[key.curve.name], deterministic_signing=True))


def _signing_key() -> Private | None:
    path = os.environ.get(_SIGNING_KEY)
    return _read_key(path, _SIGNING_KEY, "private", _load_private) if path else None


def _pem(key: Public) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _key_id(key: Public) -> str:
    body = key.public_bytes_raw() if isinstance(key, Ed25519PublicKey) else _pem(key)
    return hashlib.sha256(body).hexdigest()[:16]


def _read_key(path: str, variable: str, what: str, load: Callable[[bytes], Key]) -> Key:
    try:
        return load(read_bytes(Path(path)))
    except (OSError, DataError) as error:
        raise DataError(f"{variable}: {path}: {getattr(error, 'strerror', 'no file of a key')}; {_MAKE}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):  # not shown: the library's text may quote the key
        kinds = "Ed25519 or P-256, P-384, P-521"
        raise DataError(f"{variable}: {path} is no {kinds} {what} key in PEM without a password; {_MAKE}") from None


def _load_private(pem: bytes) -> Private:
    key = load_pem_private_key(pem, password=None)
    if not isinstance(key, Private) or (isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name not in _HASHES):
        raise TypeError(key)
    return key


def _load_public(pem: bytes) -> Public:
    key = load_pem_public_key(pem)
    if not isinstance(key, Public) or (isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name not in _HASHES):
        raise TypeError(key)
    return key
