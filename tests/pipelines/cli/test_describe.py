"""The network as text: every variant of the architecture reads differently."""

from pathlib import Path

import pytest

from pipelines.cli import describe
from pipelines.cli import main as cli
from pipelines.config import params, tree

ROOT = Path(__file__).parents[3]


def test_no_two_architectures_are_described_alike() -> None:
    variants = tree.read(ROOT / "params.yaml")["variants"]
    names = [None, *(name for name, change in variants.items() if "model" in change)]
    models = {name: params.load(ROOT / "params.yaml", variant=name).model for name in names}
    assert len({describe.text(model) for model in models.values()}) == len(set(models.values()))
    assert "tanh" in describe.text(models["tanh"])
    assert "lrn" not in describe.text(models["no-lrn"])
    assert "dropout" not in describe.text(models["no-dropout"])


def test_json_holds_the_same_numbers() -> None:
    first, *_, last = describe.tree(params.load(ROOT / "params.yaml").model)
    assert (first["kernel"], first["stride"], first["padding"], first["edge"]) == (11, 4, 0, 3)
    assert first["steps"] == ["lrn", "pool 3x3/2 to 27x27", "relu"]
    assert last["name"] == "total"


def test_the_network_is_drawn_to_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    for name, start in (("net.svg", b"<?xml"), ("net.png", b"\x89PNG")):
        assert cli.main(["describe", "--variant", "tanh", "--draw", str(tmp_path / name)]) == 0
        assert (tmp_path / name).read_bytes().startswith(start)
    capsys.readouterr()
    assert cli.main(["describe", "--draw", "net.pdf"]) == 1
    assert capsys.readouterr().err == "alexnet describe: error: --draw: net.pdf: must end in .svg or .png\n"
