"""The `alexnet` command as a user types it."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from ruamel.yaml import YAML
from safetensors.torch import save_file
from torchvision.models import alexnet

from alexnet.config import build
from pipelines.cli import main as cli
from pipelines.config import params
from pipelines.runtime.environment import Store
from tests.support.stage_folder import environment
from tests.support.trained_folder import TrainedFolder

ROOT = Path(__file__).parents[3]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = cli.main(arguments)
    out, err = capsys.readouterr()
    return status, out, err


@pytest.mark.usefixtures("no_pauses")
def test_a_store_that_is_away_is_an_exit_status_of_its_own(
    fresh_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    away = dataclasses.replace(fresh_store, endpoint="http://127.0.0.1:9")
    for name, value in (environment(away, tmp_path) | {"ALEXNET_REGISTRY_CACHE": str(tmp_path)}).items():
        monkeypatch.setenv(name, value)
    status, out, err = run(capsys, "pull")
    assert (status, out) == (75, "")
    assert len(err.splitlines()) == 1
    assert "check AWS_ENDPOINT_URL" in err


def test_torchvisions_network_is_imported_and_predicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save_file(alexnet(weights=None, num_classes=3).state_dict(), "theirs.safetensors")
    Path("labels.txt").write_text("a cat\na dog\na house\n")
    assert run(capsys, "import-torchvision", "theirs.safetensors", "model", "--labels", "labels.txt") == (
        0,
        "model: 3 classes; `alexnet predict PHOTO --model model`\n",
        "",
    )
    Image.new("RGB", (300, 200), "red").save("picture.png")
    (found,) = json.loads(run(capsys, "predict", "picture.png", "--model", "model", "--json")[1])
    assert {guess["name"] for guess in found["classes"]} == {"a cat", "a dog", "a house"}
    status, _, err = run(capsys, "import-torchvision", "theirs.safetensors", "model")
    assert (status, err) == (1, "alexnet import-torchvision: error: model: exists; name a folder to make\n")
    err = run(capsys, "import-torchvision", "theirs.safetensors", "other")[2]
    assert err.endswith("labels: must name 3 classes, a line each, as the network has; found 1000\n")


def test_the_papers_network_is_described_with_its_sixty_million_parameters(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    rows = json.loads(run(capsys, "describe", "--preset", "imagenet", "--json")[1])
    assert rows[-1]["name"] == "total"
    assert rows[-1]["parameters"] == 60_965_224
    assert rows[-1]["tower_parameters"] == (60_965_224 - 4_097_000) // 2
    text = run(capsys, "describe", "--preset", "imagenet")[1]
    assert "60,965,224" in text
    conv3 = [line.split() for line in text.splitlines() if line.startswith("conv3")]
    assert conv3[0] == ["conv3", "384", "3x3", "1", "1", "both", "towers", "13x13", "relu"]
    assert conv3[1] == ["conv3", "384", "13x13", "885,120", "64,896", "149,520,384", "192", "442,560", "74,760,192"]
    assert [line for line in text.splitlines() if line.startswith("fc8 ")][1].split()[1:] == [
        "1,000",
        "4,097,000",
        "1,000",
        "4,096,000",
    ]
    assert text.startswith("2 towers, which read each other at conv3, fc6, fc7, fc8\n")
    assert "\nfc8, in 2012 with all its classes on one GPU, is in the totals and in no tower\n" in text
    assert "1 tower\n" in run(capsys, "describe", "--variant", "one-tower")[1]
    status, _, err = run(capsys, "describe", "--variant", "no-such")
    assert status == 1
    assert err.startswith("alexnet describe: error: variants: has no 'no-such'; it has tanh, ")
    status, _, err = run(capsys, "describe", "--preset", "nothing")
    assert status == 1
    assert err == (
        "alexnet describe: error: presets: has no 'nothing'; it has "
        "digits, folder, four-layer, imagenet, imagenet-demo, imagenette, solar-cells, webdataset\n"
    )


def test_the_whole_recipe_of_a_run_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    text = run(capsys, "show")[1]
    assert build(params.Params, YAML(typ="safe", pure=True).load(text), "shown") == params.load()
    assert "# run: alexnet use digits && make run\n# expect: 2.0 % top-1 error" in text
    found = json.loads(run(capsys, "show", "--preset", "imagenet", "--variant", "no-lrn", "--json")[1])
    assert build(params.Params, found["params"], "shown") == params.load(preset="imagenet", variant="no-lrn")
    assert "ALEXNET_SOURCE=" in found["run"]
    assert found["run"].endswith("--model artifacts/no-lrn --history artifacts/no-lrn.csv --variant no-lrn")
    assert found["expect"].startswith("unknown for the variant; of the run itself: 42.3 % top-1")
    status, _, err = run(capsys, "show", "--preset", "nothing")
    assert (status, err.startswith("alexnet show: error: presets: has no 'nothing'")) == (1, True)


def test_the_recipe_of_a_run_changed_by_hand_names_no_preset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text().replace("  epochs: 10", "  epochs: 3"))
    (tmp_path / "presets").symlink_to(ROOT / "presets")
    assert run(capsys, "show")[1].endswith("# params.yaml, changed by hand.\n# run: make run\n# expect: unknown\n")


def test_a_preset_is_laid_over_params(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    (tmp_path / "presets").symlink_to(ROOT / "presets")
    assert "model.classes: 10 -> 1000\n" in run(capsys, "use", "imagenet")[1]
    assert run(capsys, "use", "imagenet")[1] == "params.yaml: is imagenet already\n"
    status, _, err = run(capsys, "use", "nothing")
    assert status == 1
    assert err == (
        "alexnet use: error: presets: has no 'nothing'; "
        "it has digits, folder, four-layer, imagenet, imagenet-demo, imagenette, solar-cells, webdataset\n"
    )


@pytest.mark.parametrize(
    "command",
    [
        "pull",
        "predict",
        "explain",
        "features",
        "releases",
        "show-release",
        "rollback",
        "verify",
        "use",
        "describe",
        "show",
        "make-ilsvrc",
        "doctor",
    ],
)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: alexnet {command}" in text


def test_a_consumer_waits_for_no_slow_library(shop: TrainedFolder) -> None:
    program = (
        "import sys\nfrom pipelines.cli.main import main\nassert main(['pull']) == 0\n"
        "slow = {'torch', 'pandas', 'pyarrow', 'matplotlib', 'sklearn', 'great_expectations', 'dvc'} & set(sys.modules)\n"
        "assert not slow, slow\n"
    )
    environment = {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", program], check=True, env={**__import__("os").environ, **environment})
