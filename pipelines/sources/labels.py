"""Lists that tell the classes of validation images which lie together in one folder."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from alexnet.errors import DataError
from pipelines.sources.base import SourceFile

if TYPE_CHECKING:
    from pipelines.sources.places import Folder

# Kaggle's ImageNet: `ILSVRC2012_val_00000001,n01440764 1 2 3 4` below a header.
# tiny-imagenet-200: `val_0.JPEG<tab>n01440764<tab>1<tab>2<tab>3<tab>4`.
LABEL_LISTS = ("LOC_val_solution.csv", "val_annotations.txt")


def find_labels(files: Iterable[SourceFile]) -> list[SourceFile]:
    """Those of a source's files that are such lists, wherever they lie."""
    return [file for file in files if file.path.rpartition("/")[2] in LABEL_LISTS]


def read_labels(folder: "Folder", files: Iterable[SourceFile], where: str) -> dict[str, str]:
    """The class by the name of the image without its suffix; empty if there is no list. Raises DataError on a damaged one."""
    labels: dict[str, str] = {}
    for file in find_labels(files):
        try:
            lines = folder.read(file.path, 0, file.size).decode("utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise DataError(f"{where}/{file.path}: not UTF-8 text; fetch it again, or remove it") from None
        for number, line in enumerate(lines, 1):
            name, _, rest = line.partition("," if file.path.endswith(".csv") else "\t")
            words = rest.split()
            if not line.strip() or name == "ImageId":
                continue
            if not words:
                raise DataError(f"{where}/{file.path}: line {number} names no class; it should be an image's name, then a WNID")
            labels[name.rpartition(".")[0] or name] = words[0]
    return labels
