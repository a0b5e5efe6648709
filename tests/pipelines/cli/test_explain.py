"""`alexnet explain` on a folder as a user has it."""

import json
from pathlib import Path

import pytest
from PIL import Image

from pipelines.cli import main as cli
from pipelines.runtime.environment import Store
from tests.support.trained_folder import make_trained_folder


def test_a_picture_is_explained(
    tmp_path: Path, fresh_store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_trained_folder(tmp_path, fresh_store, monkeypatch)
    Image.effect_noise((300, 260), 80).convert("RGB").save("photo.png")
    assert cli.main(["explain", "photo.png", "artifacts/model", "--out", "made", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"page": "made/photo-explained.html", "slide": "made/photo-explained.png"}
    page = Path("made/photo-explained.html").read_text()
    assert "never flipped" in page  # as the run's params.yaml has it
    assert "<title>photo.png in model</title>" in page  # not the path
    assert cli.main(["explain", "photo.jpg", "artifacts/model"]) == 1
    assert capsys.readouterr().err == "alexnet explain: error: photo.jpg: No such file or directory\n"
