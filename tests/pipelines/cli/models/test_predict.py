"""`alexnet predict` and `alexnet features` on files, folders, patterns and standard input."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet.errors import DataError
from alexnet.inference.photos import load
from pipelines.cli import main as cli
from pipelines.cli import pictures
from pipelines.cli.models.predict import find_photos
from pipelines.evaluation.predictions import predict
from pipelines.registry.client import Client
from pipelines.runtime.environment import Store
from pipelines.storage.bucket import Bucket
from pipelines.storage.dataset import open_dataset
from tests.support.trained_folder import TrainedFolder, make_trained_folder

MODEL = "--model=artifacts/model"
# What predict imports beside torch, of Python's own library the little that torch has not brought yet.
OURS = {
    "alexnet",
    "pipelines",
    "PIL",
    "cryptography",
    "cykooz_resizer",
    "jaxtyping",
    "numpy",
    "safetensors",
    "simplejpeg",
    "tqdm",
}
IMPORTS = """
import sys, torch
before = set(sys.modules)
from pipelines.cli.main import main
status = main(sys.argv[1:])
print(*sorted(set(sys.modules) - before))
sys.exit(status)
"""


@pytest.fixture
def place(tmp_path: Path, fresh_store: Store, monkeypatch: pytest.MonkeyPatch) -> TrainedFolder:
    return make_trained_folder(tmp_path, fresh_store, monkeypatch)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = cli.main(arguments)
    out, err = capsys.readouterr()
    return status, out, err


def test_a_picture_is_prepared_as_the_training_images_were(place: TrainedFolder, capsys: pytest.CaptureFixture[str]) -> None:
    samples = open_dataset(place.manifest, "val")
    pixels = np.empty((256, 256, 3), np.uint8)
    samples.decode(0, 0, pixels)
    Image.fromarray(pixels).save("picture.png")
    _, out, _ = run(capsys, "predict", "picture.png", MODEL, "--views", "ten", "--json")
    (found,) = json.loads(out)
    expected = predict(place.model, samples, ["ten"], 20).topk["ten"]
    assert [each["label"] for each in found["classes"]] == expected.labels[0].tolist()
    assert [each["probability"] for each in found["classes"]] == pytest.approx(expected.probabilities[0].tolist(), abs=1e-4)
    assert found["classes"][0]["name"] == f"class {found['classes'][0]['label']}"
    assert found["views"] == "ten"


def test_folders_patterns_and_standard_input_are_read_in_batches(
    place: TrainedFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, name in enumerate(["a/1.jpg", "a/deep/2.JPG", "b/3.jpg", "b/4.jpg"]):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(pictures.jpeg(seed))
    Path("a/notes.txt").touch()
    Path("b/4.jpg").write_bytes(b"no picture")
    monkeypatch.setattr("pipelines.cli.models.predict._BATCH", 2)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(pictures.jpeg(2))))
    status, out, err = run(capsys, "predict", "a", "b/*.jpg", "-", MODEL, "--json")
    found = {each["image"]: each["classes"] for each in json.loads(out)}
    assert list(found) == ["a/1.jpg", "a/deep/2.JPG", "b/3.jpg", "-"]
    assert [each["probability"] for each in found["-"]] == pytest.approx([each["probability"] for each in found["b/3.jpg"]])
    note, err = err.split("\n", 1)
    assert note == "a: not taken, files of other kinds: 1 .txt"
    assert (status, err) == (1, "alexnet predict: error: b/4.jpg: not an image; allowed: " + err.partition("allowed: ")[2])
    Path("empty").mkdir()
    with pytest.raises(DataError, match="empty: no images; allowed: .jpg"):
        find_photos(["empty"])
    with pytest.raises(DataError, match=r"none\*: no images"):
        find_photos(["none*"])
    assert find_photos(["no-such.jpg", "-"]) == ["no-such.jpg", "-"]


def test_predict_imports_torch_and_little_else(
    shop: TrainedFolder, fresh_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's import is nearly all of the two seconds that `alexnet predict` takes: nothing slow may join it.

    Of torch itself nothing that `import torch` leaves out: torch._dynamo and sympy take seconds.
    """
    monkeypatch.setenv("ALEXNET_REGISTRY_CACHE", "cache")
    Client(Bucket(fresh_store.registry, fresh_store), Path("cache")).pull("alexnet@latest")
    Path("photo.jpg").write_bytes(pictures.jpeg(1))
    command = [sys.executable, "-c", IMPORTS, "predict", "photo.jpg", "--offline"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}
    others = {name for name in found - OURS - sys.stdlib_module_names if not name.startswith("_")}
    assert (found >= {"alexnet", "pipelines", "PIL"}, others) == (True, set())


def test_names_cannot_steer_the_terminal(place: TrainedFolder, capsys: pytest.CaptureFixture[str]) -> None:
    config = Path("artifacts/model/config.json")
    config.write_text(config.read_text().replace("class 0", r"\u001b[2Jcat").replace("class 1", r"\u202egod"))
    Path("red\x1b[31m\n.jpg").write_bytes(pictures.jpeg(1))
    Path("bad\x1b.jpg").touch()
    status, out, err = run(capsys, "predict", "red\x1b[31m\n.jpg", "bad\x1b.jpg", MODEL)
    assert status == 1
    assert out.startswith("red\\x1b[31m\\n.jpg\n  ")
    assert {r"\x1b[2Jcat", r"\u202egod"} <= {word for line in out.splitlines() for word in line.split()}
    assert "\x1b" not in out + err
    assert err.startswith("alexnet predict: error: bad\\x1b.jpg: an empty file")


def test_what_systems_leave_in_a_folder_is_no_photograph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("1.jpg", "._1.jpg", ".DS_Store", "more/@eaDir/1.jpg", "more/2.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert find_photos([str(tmp_path)]) == [f"{tmp_path}/1.jpg", f"{tmp_path}/more/2.jpg"]
    assert capsys.readouterr().err == ""
    hidden = tmp_path / ".hidden"
    hidden.mkdir()
    (hidden / "3.jpg").touch()
    assert find_photos([str(hidden)]) == [f"{hidden}/3.jpg"]


def test_features_are_printed_or_written(place: TrainedFolder, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (1, 2):
        Path(f"{seed}.jpg").write_bytes(pictures.jpeg(seed))
    text = run(capsys, "features", "1.jpg", "2.jpg", MODEL)[1].splitlines()
    expected = load(Path("artifacts/model")).activations(["1.jpg"], ["fc7"])["fc7"][0].tolist()
    assert [line.split("\t")[:2] for line in text] == [["1.jpg", "fc7"], ["2.jpg", "fc7"]]
    found = json.loads(run(capsys, "features", "1.jpg", "2.jpg", MODEL, "--json")[1])
    assert [float(number) for number in text[0].split("\t")[2].split()] == pytest.approx(found[0]["features"]["fc7"], abs=1e-4)
    assert found[0]["features"]["fc7"] == pytest.approx(expected, abs=1e-5)
    out = run(capsys, "features", "1.jpg", "2.jpg", MODEL, "--layer", "fc7", "--layer", "conv5.pool", "--out", "f.npz")[1]
    with np.load("f.npz") as arrays:
        assert arrays["images"].tolist() == ["1.jpg", "2.jpg"]
        assert np.allclose(arrays["fc7"], [each["features"]["fc7"] for each in found])
        shape = "x".join(map(str, arrays["conv5.pool"].shape[1:]))
    assert f"2.jpg\tconv5.pool\t{shape}\n" in out
    status, _, err = run(capsys, "features", "1.jpg", MODEL, "--out", "2.jpg")
    assert (status, err) == (1, "alexnet features: error: --out: 2.jpg: must end in .npz\n")
    assert Path("2.jpg").read_bytes() == pictures.jpeg(2)
    status, _, err = run(capsys, "features", "1.jpg", MODEL, "--layer", "fc9")
    assert (status, err.startswith("alexnet features: error: no point fc9; this network has conv1")) == (1, True)
