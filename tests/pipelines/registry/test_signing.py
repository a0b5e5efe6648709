"""Signatures: openssl's own format, keys that are none, and what was signed before."""

import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from alexnet.errors import DataError
from pipelines.registry import signing
from tests.pipelines.registry.conftest import MakeKeys, make
from tests.pipelines.registry.test_release import PUBLISHED

PUBLIC_KEY = """-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAr4bNnjqioEXYHQtgu+4dSvDXkPcrhZIVzfbogTlOb8Y=
-----END PUBLIC KEY-----
"""
SIGNATURE = bytes.fromhex(
    "22f2f39aa8112b3d2210fdfa5ffcddf9f825669dd2633c4622e53cadbdd68d08"
    "6d22c878eec88ef488d27c06991af630ddaa34aeb63c3caefa871fd18dc90b07"
)


def test_what_was_signed_before_is_verified(tmp_path: Path) -> None:
    (tmp_path / "key.pub").write_text(PUBLIC_KEY)
    key = signing.PublicKey(tmp_path / "key.pub")
    assert key.id == "9c488ad6128f5ac6"
    key.verify(PUBLISHED, SIGNATURE, "here")
    with pytest.raises(DataError, match="here: its signature by key 9c488ad6128f5ac6 is wrong; it was changed, do not use it"):
        key.verify(PUBLISHED + b" ", SIGNATURE, "here")


def test_an_ed25519_signature_that_begins_like_a_bundle_is_none(make_keys: MakeKeys) -> None:
    key = make_keys("key")
    signed = ((body, signing.sign(body)) for body in (b"%d" % number for number in range(9999)))
    body, signature = next((body, each[1]) for body, each in signed if each and each[1].startswith(b"{"))  # one in 256
    key.verify(body, signature, "here")
    with pytest.raises(DataError, match="here: its signature by key .* is wrong"):
        key.verify(body + b" ", signature, "here")


def test_openssl_accepts_our_signature(tmp_path: Path, make_keys: MakeKeys) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on this machine")
    make_keys("key")
    (tmp_path / "manifest.json").write_bytes(b"body")
    signed = signing.sign(b"body")
    assert signed is not None
    (tmp_path / "one.sig").write_bytes(signed[1])
    command = [
        "openssl",
        "pkeyutl",
        "-verify",
        "-rawin",
        "-pubin",
        "-inkey",
        "key.pub",
        "-sigfile",
        "one.sig",
        "-in",
        "manifest.json",
    ]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)


def test_a_key_that_is_none_is_named_and_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key.pem"
    monkeypatch.setenv("ALEXNET_SIGNING_KEY", str(path))
    with pytest.raises(DataError, match=r"ALEXNET_SIGNING_KEY: .*No such file.*openssl genpkey"):
        signing.sign(b"")
    path.write_text("-----BEGIN PRIVATE KEY-----\nCANARY\n-----END PRIVATE KEY-----\n")
    with pytest.raises(
        DataError, match="key.pem is no Ed25519 or P-256, P-384, P-521 private key in PEM without a password"
    ) as caught:
        signing.sign(b"")
    assert "CANARY" not in str(caught.value)
    monkeypatch.setenv("ALEXNET_VERIFY_KEY", str(path))
    with pytest.raises(DataError, match=r"ALEXNET_VERIFY_KEY: .* is no Ed25519 or P-256, P-384, P-521 public key in PEM"):
        signing.trusted_key()
    monkeypatch.setenv("ALEXNET_VERIFY_KEY", "/dev/zero")
    with pytest.raises(DataError, match="ALEXNET_VERIFY_KEY: /dev/zero: no file of a key"):
        signing.trusted_key()
    monkeypatch.delenv("ALEXNET_SIGNING_KEY")
    monkeypatch.delenv("ALEXNET_VERIFY_KEY")
    assert signing.sign(b"") is None
    assert signing.trusted_key() is None


def test_a_key_of_another_algorithm_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rsa.pem"
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    monkeypatch.setenv("ALEXNET_SIGNING_KEY", str(path))
    with pytest.raises(DataError, match=r"rsa\.pem is no Ed25519 or P-256, P-384, P-521 private key in PEM"):
        signing.sign(b"")


def ec_keys(folder: Path, curve: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes a pair of keys, sets the environment to sign with it, and returns the public one's file."""
    for command in (
        ["openssl", "ecparam", "-name", curve, "-genkey", "-noout", "-out", "ec.pem"],
        ["openssl", "ec", "-in", "ec.pem", "-pubout", "-out", "ec.pub"],
    ):
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    monkeypatch.setenv("ALEXNET_SIGNING_KEY", str(folder / "ec.pem"))
    return folder / "ec.pub"


@pytest.mark.parametrize("curve", ["prime256v1", "secp384r1", "secp521r1"])
def test_an_elliptic_curve_key_signs_a_release_as_openssf_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, curve: str
) -> None:
    key = signing.PublicKey(ec_keys(tmp_path, curve, monkeypatch))
    release, _ = make(tmp_path / "release")
    signed = signing.sign_release(release)
    assert signed is not None
    assert signed == signing.sign_release(release)
    assert signed[0] == key.id
    key.verify(release.manifest(), signed[1], "here")
    bundle = json.loads(signed[1])
    payload = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    payload["predicate"]["resources"][0]["digest"] = "0" * 64
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()
    other, _ = make(tmp_path / "other", "two")
    for body, signature in (
        (other.manifest(), signed[1]),
        (release.manifest(), json.dumps(bundle).encode()),
        (release.manifest(), b"{}"),
        (release.manifest(), b"{"),
    ):
        with pytest.raises(DataError, match=f"here: its signature by key {key.id} is wrong"):
            key.verify(body, signature, "here")
    raw = signing.sign(b"body")  # of a move of an alias
    assert raw is not None
    key.verify(b"body", raw[1], "here")


@pytest.mark.slow
def test_openssfs_own_tool_verifies_our_signature_and_we_verify_its(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    public = ec_keys(tmp_path, "prime256v1", monkeypatch)
    release, folder = make(tmp_path / "release")
    (folder / "manifest.json").write_bytes(release.manifest())
    signed = signing.sign_release(release)
    assert signed is not None
    key_id, body = signed
    (folder / "signatures").mkdir()
    (folder / f"signatures/{key_id}.sig").write_bytes(body)

    def tool(*arguments: str) -> int:
        return subprocess.run([sys.executable, "-m", "model_signing", *arguments], cwd=tmp_path, capture_output=True).returncode

    verify = ("verify", "key", "release", "--signature", f"release/signatures/{key_id}.sig", "--public_key", "ec.pub")
    assert tool(*verify) == 0
    (folder / "README.md").write_text("changed")
    assert tool(*verify) == 1
    (folder / "README.md").write_text("one")
    (folder / "extra.bin").write_text("not named")
    assert tool(*verify) == 1
    (folder / "extra.bin").unlink()
    ignored = ("--ignore-paths", "release/signatures")
    assert tool("sign", "key", "release", "--signature", "theirs.sig", "--private_key", "ec.pem", *ignored) == 0
    signing.PublicKey(public).verify(release.manifest(), (tmp_path / "theirs.sig").read_bytes(), "here")
