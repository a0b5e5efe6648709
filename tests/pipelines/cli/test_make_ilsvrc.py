import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from alexnet.errors import ParamsError
from alexnet.images.inspect import FAULTS
from pipelines.cli.main import main
from pipelines.sources.archives.devkit import ILSVRC2010, ILSVRC2012, Year
from tests.support.stage_folder import make_small_ilsvrc


@pytest.mark.parametrize("year", [ILSVRC2012, ILSVRC2010], ids=lambda year: year.name)
def test_equal_recipes_make_equal_archives(year: Year, tmp_path: Path) -> None:
    made = []
    for name, images in (("a", 4), ("b", 4), ("c", 5)):
        make_small_ilsvrc(tmp_path / name, plant=FAULTS, year=year, images=images)
        made.append({path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / name).iterdir()})
    assert set(made[0]) == set(year.archives)
    assert made[0] == made[1]
    assert made[0][year.train] != made[2][year.train]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": 2, "plant": ("leaked",)}, "needs 2 synsets, 3 images and 1 validation image each; got 3, 2, 2"),
        ({"images": 1, "plant": ("duplicate",)}, "needs 2 synsets, 2 images and 1 validation image each; got 3, 1, 2"),
        ({"synsets": 1}, "needs 2 synsets, 1 images"),
        ({"plant": ("leaked",) * 7}, "plant: leaked stands 7 times, for 6 validation images"),
    ],
)
def test_too_few_images_for_the_faults_are_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=message):
        make_small_ilsvrc(tmp_path / "made", **changes)
    assert not (tmp_path / "made").exists()


def test_the_command_lists_the_archives_and_the_planted_faults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["make-ilsvrc", str(tmp_path / "made"), "--synsets", "2", "--images", "3", "--val-images", "1"]
    assert main([*command, "--plant", "cmyk", "leaked"]) == 0
    out = capsys.readouterr().out
    assert f"{tmp_path}/made/ILSVRC2012_img_train.tar: 0." in out
    assert out.endswith("planted: n01440764_900000 is cmyk\nplanted: n01440801_2 is leaked\n")
    assert main([*command, "--json", "--plant", "all", "--year", "2010"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["files"]) >= {*ILSVRC2010.archives}
    assert {fault for faults in found["faults"].values() for fault in faults} == set(FAULTS)
    assert main([*command, "--plant", "gray"]) == 1
    assert "make-ilsvrc: error: plant: no such fault 'gray'; there are empty, not_an_image, " in capsys.readouterr().err


def test_other_archives_of_these_names_are_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They may be ImageNet's own, fetched in a week."""
    command = ["make-ilsvrc", str(tmp_path), "--synsets", "2", "--images", "1", "--val-images", "1"]
    own = tmp_path / "ILSVRC2012_img_val.tar"
    own.write_bytes(b"ImageNet")
    assert main(command) == 1
    assert f"{own}: exists, and is another one; name a folder without it, or remove it" in capsys.readouterr().err
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(own.name, b"ImageNet")]
    own.unlink()
    assert main(command) == main(command) == 0
