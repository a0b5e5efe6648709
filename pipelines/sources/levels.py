"""Which level of folders has the classes: stops, with what to set, where it may be another one than the first.

The names alone decide: of folders that hold what classes are kept in, and of those that lie in several of the supposed classes.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from alexnet.errors import DataError
from alexnet.images.inspect import SUFFIXES, suffix
from alexnet.shards.manifest import Split
from pipelines.sources.base import SourceFile
from pipelines.sources.class_names import LABEL_LISTS, LISTS
from pipelines.sources.known_names import is_container, split_names
from pipelines.sources.layout import Node, images, kept, setting, some, stop

_SPLITS_DEEP = 3  # folders above the splits, at most, that are looked into for a better ALEXNET_SOURCE
_ENDS = re.compile(r"^[\W\d_]+|[\W\d_]+$")  # what an image's name has around that of a class, as in cat.12
_SHOWN = 5  # classes that images' names say, at most
_TABLES = 20  # files that may be lists, at most; more are of an image each
_TABLE = re.compile(  # names of files that may tell the classes of images in one folder
    r".*\.(csv|tsv|xlsx?|jsonl|parquet)|.*(label|class|annot|train|val|test|split|target|meta|list).*\.(txt|json|ya?ml)",
    re.IGNORECASE,
)


def check_levels(root: Node, where: str, places: Mapping[str, Split | None], files: Sequence[SourceFile]) -> None:
    """Checks that the training split's folders can be classes.

    Args:
        root: The source's folders.
        where: Its name in errors.
        places: The folders of the splits, which end in a slash; an empty one is the source itself.
        files: The source's files, whose names may say classes.

    Raises:
        DataError: they are splits, or a copy, or lie too high, or hold images of all classes.
    """
    if "" in places:
        _check_top(root, where, files)
    for place in [place for place, split in places.items() if split in (None, "train")]:
        node = root.at(place.rstrip("/"))
        assert node
        tops, classes = node.with_images(), f"set source.splits to {kept(places)}"
        if mixed := next((name for name in tops if is_container(name)), None):
            what = f"{place}{mixed}/ has the name of a folder for images of all classes{_told(files)}"
            stop(where, what, f"move them to {place}CLASS/IMAGE{_untold(files)}; or, if it is a class, {classes}")
        for name, child in tops.items():
            if len(same := tops.keys() & child.with_images().keys()) > 1:
                what = f"{place}{name}/ has folders of the same names as beside it ({some(sorted(same))})"
                stop(where, what, f"if it is a copy, set source.ignore to [{name}]; if it is a class, {classes}")
        _refuse_shared(tops, where, place, classes)


def _refuse_shared(tops: Mapping[str, Node], where: str, place: str, classes: str) -> None:
    """Raises DataError where several folders have folders of the same names in them: either may be the classes."""
    times = Counter(name for child in tops.values() for name in _fork(child)[1].with_images())
    shared = sorted(name for name, count in times.items() if count > 1)
    if len(shared) < 2:
        return
    uppers = [name for name, child in tops.items() if _fork(child)[1].with_images().keys() & set(shared)]
    uppers.sort(key=lambda name: -tops[name].total)
    what = f"{some([f'{place}{name}/' for name in uppers])} have folders of the same names in them ({some(shared)})"
    if "train" in (splits := split_names(shared)).values():
        train = next(name for name, split in splits.items() if split == "train")
        stop(where, f"{what}, which are splits", f"move {uppers[0]}/{train}/ to {train}/{uppers[0]}/, and so on; or {classes}")
    lower = "else move the lower ones up"
    if not place:
        lower = f"if they are splits, set it to {setting({'train': uppers[0], 'val': uppers[1]})} or the like"
    stop(where, what, f"if they are the classes, {classes}, and source.ignore to what is not of the class; {lower}")


def _fork(node: Node) -> tuple[str, Node]:
    """The path and the folder, below this one or itself, that has not just one folder and nothing else in it."""
    path = ""
    while not node.own and len(inner := node.with_images()) == 1:
        ((name, node),) = inner.items()
        path += f"{name}/"
    return path, node


def _check_top(root: Node, where: str, files: Sequence[SourceFile]) -> None:
    tops = root.with_images()
    named = split_names(tops)
    if len(named) > 1 and len(named) == len(tops):
        what = f"{some([f'{name}/' for name in tops])} have the names of splits, and no train/ with classes' folders in it"
        do = f"move the images to train/CLASS/IMAGE{_told(files)}{_untold(files)}"
        stop(where, what, f"{do}; or, if these are the classes, set source.splits to {{train: .}}")
    if any(split is not None for split in named.values()) and any(tops[name].has_classes for name in named):
        others = some([f"{name}/" for name in tops if name not in named])
        have = "has the name of a split" if len(named) == 1 else "have the names of splits"
        what = f"{', '.join(f'{name}/' for name in named)} {have} beside {others}"
        like: dict[Split, str] = {"train": ".", **{split: name for name, split in named.items() if split}}
        do = f"name the training images' folder in source.splits, as in {setting(like)}"
        do += "; or, if these are the classes, set it to {train: .}"
        stop(where, what, do)
    if below := places_of_splits(root):
        many = "one of them" if len(below) > 1 else "it"
        if below[0].endswith("CLS-LOC"):
            stop(
                where,
                "Kaggle's ImageNet, whose validation images have no folders",
                "`alexnet use imagenet` reads it as it lies there",
            )
        what = f"its splits lie in {', '.join(f'{path}/' for path in below)}"
        stop(where, what, f"set ALEXNET_SOURCE to {many}: {where}/{below[0]}")
    path, fork = _fork(root)
    if path and len(fork.with_images()) > 1:
        what = f"all its images lie in {path}"
        stop(where, what, f"if the folders in it are the classes, set ALEXNET_SOURCE to {where}/{path.rstrip('/')}")
    if not tops and root.own:
        stop(where, f"in no class's folder: {images(root.own)}{_told(files)}", f"move them to CLASS/IMAGE{_untold(files)}")
    if path and len(root.children) == 1 and not any(map(is_container, path.split("/")[:-1])):
        what = f"one class only, {path.rstrip('/')}{_told(files)}"
        raise DataError(f"{where}: {what}; it takes two to tell apart{_untold(files)}")


def _told(files: Sequence[SourceFile]) -> str:
    """The classes that images' own names say, as in cat.12.jpg and 13_dog.png; empty unless a few names have many images."""
    names = [file.path.rpartition("/")[2] for file in files]
    times = Counter(_ENDS.sub("", name.rpartition(".")[0]) for name in names if suffix(name) in SUFFIXES)
    times.pop("", None)
    if not 2 <= len(times) <= times.total() // 2:
        return ""
    return f" (by their names, of {some(sorted(times)[: _SHOWN + 1])})"


def _untold(files: Sequence[SourceFile]) -> str:
    """The files that may tell the images' classes, and what to make by them, for they are not read; empty without any."""
    read = {*LISTS, *LABEL_LISTS}
    tables = [file.path for file in files if _TABLE.fullmatch(name := file.path.rpartition("/")[2]) and name not in read]
    if not 0 < len(tables) <= _TABLES:
        return ""
    make = "make a folder of every class by it, as docs/data.md shows, or WebDataset tars of KEY.jpg and KEY.cls"
    return f", for no list of images and classes is read, as {some(tables)} may be: {make}"


def places_of_splits(root: Node, depth: int = _SPLITS_DEEP) -> list[str]:
    """The folders below, not many levels down, that hold a training split."""
    found = []
    for name, child in root.with_images().items():
        if "train" in (split_names(each for each, node in child.with_images().items() if node.has_classes)).values():
            found.append(name)
        elif depth > 1:
            found += [f"{name}/{path}" for path in places_of_splits(child, depth - 1)]
    return found
