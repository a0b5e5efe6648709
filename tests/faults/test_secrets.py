"""P11: a whole run that signs, with every log at DEBUG, leaves no secret in its output, its files or the registry."""

import dataclasses
import json
import re
import secrets
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from infra.stack import Stack
from pipelines.runtime.environment import Store
from pipelines.storage.bucket import Bucket
from tests.support.checkout import make_checkout

# Python runs it before any program of the checkout.
_DEBUG = "import logging\nlogging.basicConfig(level=logging.DEBUG)\n"
_MAY_HOLD = re.compile(r"^\.git/|^debug/|^key\.pem$")


@pytest.mark.slow
def test_no_secret_is_in_anything_that_a_run_leaves(tmp_path: Path, stack: Stack, store: Store) -> None:
    checkout = make_checkout(tmp_path / "run", stack, store, f"canary-{secrets.token_hex(4)}")
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (checkout.root / "key.pem").write_bytes(pem)
    (checkout.root / "debug").mkdir()
    (checkout.root / "debug/sitecustomize.py").write_text(_DEBUG)
    user = "canary-" + secrets.token_hex(8)
    endpoint = (store.endpoint or "").replace("http://", f"http://{user}:{user}@")
    env = {
        "ALEXNET_SIGNING_KEY": str(checkout.root / "key.pem"),
        "PYTHONPATH": str(checkout.root / "debug"),
        "AWS_ENDPOINT_URL": endpoint,
    }
    done = checkout.repro(**env)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "DEBUG:" in done.stdout
    said = done.stdout
    for command in (("list", "--json"), ("trace", "--json"), ("doctor",)):
        whole = [sys.executable, "-m", "pipelines.cli.main", *command]
        told = subprocess.run(whole, cwd=checkout.root, env=checkout.env | env, capture_output=True, text=True)
        said += told.stdout + told.stderr
    registry = Bucket(checkout.store.registry, dataclasses.replace(checkout.store))
    found = {"output": said.encode()} | {f"registry/{key}": registry.get(key) for key in registry.sizes("")}
    found |= {str(path.relative_to(checkout.root)): path.read_bytes() for path in checkout.root.rglob("*") if path.is_file()}
    assert any(name.endswith("manifest.json") for name in found)
    canaries = [user, str(store.secret_key), *(line for line in pem.decode().splitlines() if "-" not in line)]
    assert min(map(len, canaries)) > 15
    leaks = [
        (name, canary[:4])
        for name, body in found.items()
        if not _MAY_HOLD.match(name)
        for canary in canaries
        if canary.encode() in body
    ]
    assert leaks == [], json.dumps(leaks)
