"""The folder of a model, by its name."""

import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import alexnet
from alexnet.errors import DataError
from pipelines.cli import pictures
from pipelines.cli.main import main
from pipelines.cli.models.folder import model_folder
from pipelines.registry.release import Release, signature_path
from pipelines.registry.signing import PublicKey


def test_a_folder_is_itself_and_no_store_is_asked() -> None:
    """boto3 takes half a second to import: neither a folder nor a release that was pulled before (`--offline`) waits for it."""
    program = (
        "import sys; from pathlib import Path; import pipelines.registry.client\n"
        "from pipelines.cli.models import folder, predict\n"
        "assert folder.model_folder('m', False) == Path('m')\n"
        "print(sorted({'boto3', 'botocore', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"


def test_with_a_key_only_a_folder_that_it_signed_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, public = tmp_path / "model", tmp_path / "public.pem"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    private = Ed25519PrivateKey.generate()
    public.write_bytes(private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    monkeypatch.delenv("ALEXNET_VERIFY_KEY", raising=False)
    assert model_folder(str(folder), offline=True) == folder
    monkeypatch.setenv("ALEXNET_VERIFY_KEY", str(public))
    with pytest.raises(DataError, match=r"manifest\.json: No such file"):
        model_folder(str(folder), offline=True)
    body = Release.from_folder("alexnet", folder).manifest()
    (folder / "manifest.json").write_bytes(body)
    with pytest.raises(DataError, match="not signed by key"):
        model_folder(str(folder), offline=True)
    signature = folder / signature_path(PublicKey(public).id)
    signature.parent.mkdir()
    signature.write_bytes(private.sign(body))
    assert model_folder(str(folder), offline=True) == folder
    with pytest.raises(DataError, match=r"model\.safetensors: no such file"):  # past the key
        alexnet.load(folder)
    (folder / "config.json").write_text("[]")
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(pictures.jpeg(1))
    for command in (["story"], ["predict", "--model"], ["explain"]):
        assert main([command[0], str(photo), *command[1:], str(folder)]) == 1
        assert "changed; pull it again" in capsys.readouterr().err
    with pytest.raises(DataError, match="changed; pull it again"):
        alexnet.load(folder)
