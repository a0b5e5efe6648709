from pathlib import Path

import pytest

from alexnet.errors import DataError
from pipelines.sources.class_names import read_labels
from pipelines.sources.places import LocalFolder


def labels(root: Path, name: str, data: bytes) -> dict[str, str]:
    (root / "val").mkdir()
    (root / "val" / name).write_bytes(data)
    folder = LocalFolder(root)
    return read_labels(folder, folder.list(), "here")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("LOC_val_solution.csv", b"ImageId,PredictionString\na,n1 1 2 3 4 n1 5 6 7 8 \nb.c,n2 1 2 3 4\n"),
        ("LOC_val_solution.csv", b"\xef\xbb\xbfImageId,PredictionString\r\na,n1 1 2 3 4\r\nb.c,n2 1 2 3 4\r\n\r\n"),
        ("val_annotations.txt", b"a.JPEG\tn1\t0\t0\t63\t63\nb.c.JPEG\tn2\t0\t0\t63\t63"),
    ],
)
def test_a_list_tells_the_classes(tmp_path: Path, name: str, data: bytes) -> None:
    found = labels(tmp_path, name, data)
    assert list(found.values()) == ["n1", "n2"]
    assert found["a"] == "n1"


@pytest.mark.parametrize(
    ("data", "message"), [(b"a\n", "line 1 names no class"), (b"a,n1\nb,", "line 2"), (b"\xff", "not UTF-8")]
)
def test_a_damaged_list_is_named(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=f"here/val/LOC_val_solution.csv: {message}"):
        labels(tmp_path, "LOC_val_solution.csv", data)
