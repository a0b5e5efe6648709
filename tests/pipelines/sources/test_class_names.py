"""Lists of classes that lie beside the folders of a source."""

from pathlib import Path

import pytest

from alexnet.errors import DataError
from pipelines.sources.base import SourceConfig
from pipelines.sources.folder import FolderSource
from pipelines.sources.places import LocalFolder


def names(root: Path, file: str, text: str) -> dict[str, str]:
    for wnid in ("n01", "n02"):
        (root / wnid).mkdir()
        (root / wnid / "1.jpg").touch()
    (root / file).write_text(text)
    return FolderSource(LocalFolder(root), "here").class_names()


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("LOC_synset_mapping.txt", "n01 tench, Tinca tinca\nn03 other\n"),
        ("words.txt", "n01\ttench, Tinca tinca\n"),
        ("synset_words.txt", "n01 tench, Tinca tinca\n\n"),
        ("classes.json", '{"n01": "tench, Tinca tinca"}'),
        ("classes.json", '{"0": ["n01", "tench, Tinca tinca"]}'),
    ],
)
def test_a_class_has_the_name_of_the_list_or_of_its_folder(tmp_path: Path, file: str, text: str) -> None:
    assert names(tmp_path, file, text) == {"n01": "tench, Tinca tinca", "n02": "n02"}


@pytest.mark.parametrize(
    ("file", "text"), [("words.txt", "n01\n"), ("classes.json", "[1]"), ("classes.json", "{"), ("classes.json", '{"a": 1}')]
)
def test_a_damaged_list_is_named(tmp_path: Path, file: str, text: str) -> None:
    with pytest.raises(DataError, match=rf'here/{file}: no list of classes; .*, or set source\.ignore to \["{file}"\]'):
        names(tmp_path, file, text)
    config = SourceConfig("folder", 0.25, (), ignore=(file,))
    assert FolderSource(LocalFolder(tmp_path), "here", config=config).class_names() == {"n01": "n01", "n02": "n02"}
