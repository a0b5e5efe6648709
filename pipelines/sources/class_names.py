"""Lists that lie beside the folders of a source: readable names of classes, and the classes of images in one folder."""

from codecs import BOM_UTF8
from collections.abc import Iterable
from typing import TYPE_CHECKING

from alexnet.errors import DataError
from alexnet.files.strict import loads
from pipelines.sources.base import SourceFile
from pipelines.sources.layout import ignoring

if TYPE_CHECKING:
    from pipelines.sources.places import Folder

# WNID and name in every line, parted by a space or a tab; or JSON, {WNID: name} or {label: [WNID, name]}.
LISTS = ("LOC_synset_mapping.txt", "words.txt", "synset_words.txt", "classes.json")
# Kaggle's ImageNet: `ILSVRC2012_val_00000001,n01440764 1 2 3 4` below a header.
# tiny-imagenet-200: `val_0.JPEG<tab>n01440764<tab>1<tab>2<tab>3<tab>4`.
LABEL_LISTS = ("LOC_val_solution.csv", "val_annotations.txt")


def read_class_names(folder: "Folder", files: list[SourceFile], where: str) -> dict[str, str]:
    """Names by wnid from the first list that the folder has; empty if it has none. Raises DataError if it is damaged."""
    sizes = {file.path: file.size for file in files}
    name = next((name for name in LISTS if name in sizes), None)
    if name is None:
        return {}
    try:
        data = folder.read(name, 0, sizes[name]).removeprefix(BOM_UTF8)
        return _from_json(loads(data)) if name.endswith(".json") else _from_lines(data.decode())
    except (ValueError, AttributeError, TypeError):
        raise DataError(
            f"{where}/{name}: no list of classes; needs WNID and name in every line, or JSON {{WNID: name}}; mend or "
            f"remove it, or set {ignoring(name)}"
        ) from None


def _from_lines(text: str) -> dict[str, str]:
    pairs = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    return {wnid: name.strip() for wnid, name in pairs}


def _from_json(tree: dict[str, str | list[str]]) -> dict[str, str]:
    pairs = [(key, value) if isinstance(value, str) else tuple(value) for key, value in tree.items()]
    return {str(wnid): str(name) for wnid, name in pairs}


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
            raise DataError(f"{where}/{file.path}: not UTF-8 text; fetch it again, or set {ignoring(file.path)}") from None
        for number, line in enumerate(lines, 1):
            name, _, rest = line.partition("," if file.path.endswith(".csv") else "\t")
            words = rest.split()
            if not line.strip() or name == "ImageId":
                continue
            if not words:
                raise DataError(f"{where}/{file.path}: line {number} names no class; it should be an image's name, then a WNID")
            labels[name.rpartition(".")[0] or name] = words[0]
    return labels
