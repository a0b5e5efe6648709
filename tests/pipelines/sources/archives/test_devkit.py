import gzip
from pathlib import Path

import pytest

from alexnet.errors import DataError
from pipelines.cli.make_ilsvrc import Contents, meta_mat, tar_of
from pipelines.sources.archives.devkit import ILSVRC2010, ILSVRC2012, Year, read_devkit
from tests.support.stage_folder import make_small_ilsvrc


@pytest.fixture
def made(tmp_path: Path) -> Contents:
    return make_small_ilsvrc(tmp_path)


@pytest.mark.parametrize("year", [ILSVRC2012, ILSVRC2010], ids=lambda year: year.name)
def test_a_devkit_has_the_classes_without_their_parent_and_the_labels(year: Year, tmp_path: Path) -> None:
    made = make_small_ilsvrc(tmp_path, year=year)
    kit = read_devkit((tmp_path / year.devkit).read_bytes(), year, "kit")
    assert kit.names == {wnid: f"thing {label}, object {label}" for label, wnid in enumerate(made.wnids)}
    assert kit.val_wnids == {f"{year.name}_val_{number + 1:08}": made.wnids[number % 3] for number in range(6)}
    assert kit.train_images == 3 * 4


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"meta": b""}, "has no ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt; is it another year's"),
        ({"meta": b"no matlab", "truth": b"1\n"}, "meta.mat holds no list of synsets: "),
        ({"meta": b"MADE", "truth": b"1\none\n"}, "ground_truth.txt: invalid literal .*; it should hold one id a line"),
        (
            {"meta": b"MADE", "truth": b"1\n9\n"},
            "ground_truth.txt has id 9, which is no synset's; the kit is not the one of ILSVRC2012",
        ),
    ],
)
def test_another_devkit_is_refused(files: dict[str, bytes], message: str, made: Contents) -> None:
    names = {"meta": ILSVRC2012.meta, "truth": ILSVRC2012.truth}
    bodies = {name: meta_mat(made, ILSVRC2012) if body == b"MADE" else body for name, body in files.items()}
    kit = gzip.compress(tar_of([(names[name], body) for name, body in bodies.items()]))
    with pytest.raises(DataError, match=f"^kit: .*{message}"):
        read_devkit(kit, ILSVRC2012, "kit")
