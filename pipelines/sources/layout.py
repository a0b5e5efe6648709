"""What the folders of a source are taken for: splits, classes, images; and all that is not taken, by name and by suffix.

The rule: a folder is a split when its name says so and the classes' folders lie in it; nothing is guessed between two readings,
and nothing is left out without being counted.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from alexnet.errors import DataError
from alexnet.images.inspect import SUFFIXES, suffix
from alexnet.shards.manifest import Split
from pipelines.sources.base import SourceConfig, SourceFile
from pipelines.sources.known_names import is_ignored, is_litter, is_preview_folder, split_names, split_words

_NAMED = 5  # names in a message at most
_KINDS = 20  # suffixes in a message at most
_SPLITS_DEEP = 3  # folders above the splits, at most, that are looked into for a better ALEXNET_SOURCE


@dataclass
class Node:
    """A folder: how many images lie in it and in all below it, and its folders by name."""

    own: int = 0
    total: int = 0
    children: dict[str, "Node"] = field(default_factory=dict)

    def at(self, path: str) -> "Node | None":
        """The folder of this path below."""
        node: Node | None = self
        for part in path.split("/") if path else ():
            node = node.children.get(part) if node else None
        return node

    def with_images(self) -> dict[str, "Node"]:
        """The folders that hold images, themselves or below."""
        return {name: child for name, child in sorted(self.children.items()) if child.total}

    @property
    def has_classes(self) -> bool:
        """Whether folders in it hold images."""
        return self.total > self.own


@dataclass
class LeftOut:
    """What is not taken. folders: with their images, beside the splits or the classes. litter, ignored: by name and pattern.

    suffixes: of other files. loose: images in no class's folder. unlabelled: images that are taken, and whose class the
    development kit or the list of labels does not know, or that has none in its sample. tars: in no split that is named.
    """

    suffixes: Counter[str] = field(default_factory=Counter)
    folders: dict[str, int] = field(default_factory=dict)
    loose: list[str] = field(default_factory=list)
    unlabelled: list[str] = field(default_factory=list)
    tars: list[str] = field(default_factory=list)
    litter: Counter[str] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)

    def is_image(self, file: SourceFile, lists: Collection[str] = ()) -> bool:
        """Whether a file is an image by its name; another is counted, unless it is one of the lists that are read."""
        name = file.path.rpartition("/")[2]
        kind = suffix(name)
        if kind not in SUFFIXES and name and name not in lists:
            self.suffixes[kind or "without a suffix"] += 1
        return kind in SUFFIXES

    def lines(self) -> Iterator[str]:
        """What a person is told, a line a kind."""
        if self.suffixes:
            yield f"not taken, no images by their names: {_counted(self.suffixes)}{_heic(self.suffixes)}"
        if self.folders:
            names = (f"{name}/ ({count:,} images)" if count else f"{name}/ (empty)" for name, count in self.folders.items())
            yield f"not taken, no split by their names, or without classes: {', '.join(names)}"
        if self.loose:
            yield f"not taken, in no class's folder: {len(self.loose):,} images ({_some(self.loose)})"
        if self.unlabelled:
            yield f"of no known class: {len(self.unlabelled):,} images ({_some(self.unlabelled)}), the fault unknown_class"
        if self.tars:
            yield f"not taken, in no split that source.splits names: {len(self.tars):,} tars ({_some(self.tars)})"
        if self.litter:
            yield f"not taken, left by systems and other programs: {_counted(self.litter)}"
        if self.ignored:
            yield f"not taken, as source.ignore says: {_counted(self.ignored)}"


def _counted(counts: Counter[str]) -> str:
    more = f" and {len(counts) - _KINDS:,} kinds more" if len(counts) > _KINDS else ""
    shown = (
        (count, name if name.isprintable() and len(name) < 24 else ascii(name[:24]))
        for name, count in counts.most_common(_KINDS)
    )
    return ", ".join(f"{count:,} {name}" for count, name in shown) + more


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


def _heic(suffixes: Counter[str]) -> str:
    found = [name for name in (".heic", ".heif") if name in suffixes]
    return (
        f"; {' and '.join(found)} are photographs of phones, which no library here decodes: convert them to JPEG"
        if found
        else ""
    )


def take(files: Iterable[SourceFile], config: SourceConfig, out: LeftOut) -> list[SourceFile]:
    """The files that may be part of a data set. Litter, previews and what `source.ignore` names are counted in `out`."""
    taken: list[SourceFile] = []
    verdicts: dict[str, str | None] = {"": None}  # of folders: the litter that they are or lie in
    kept, previews = [], set[str]()
    for file in files:
        folder, _, name = file.path.rpartition("/")
        if name and not is_litter(name) and suffix(name) in SUFFIXES:
            previews.add(folder)  # what previews would lie beside
        kept.append((folder, name, file))

    def litter_of(folder: str) -> str | None:
        if folder not in verdicts:
            above, _, name = folder.rpartition("/")
            is_preview = is_preview_folder(name) and above in previews and bool(above)
            verdicts[folder] = litter_of(above) or (f"{name}/" if is_litter(name) or is_preview else None)
        return verdicts[folder]

    for folder, name, file in kept:
        if litter := litter_of(folder) or (name if is_litter(name) else None):
            out.litter["._*" if litter.startswith("._") else litter] += 1
        elif config.ignore and is_ignored(file.path.rstrip("/"), config.ignore):
            out.ignored[next(each for each in config.ignore if is_ignored(file.path.rstrip("/"), [each]))] += 1
        else:
            taken.append(file)
    return taken


def tree(files: Iterable[SourceFile]) -> Node:
    """The folders of a listing. A path that ends in a slash is an empty folder."""
    counts: Counter[str] = Counter()
    for file in files:
        folder, _, name = file.path.rpartition("/")
        counts[folder] += suffix(name) in SUFFIXES
    root = Node()
    for folder, images in counts.items():
        node = root
        node.total += images
        for part in folder.split("/") if folder else ():
            node = node.children.setdefault(part, Node())
            node.total += images
        node.own += images
    return root


def find_splits(root: Node, where: str, config: SourceConfig, labelled: bool) -> dict[str, Split | None]:
    """The folders of the splits, which end in a slash, and their splits; {"": None} where the source has none.

    Args:
        root: The source's folders.
        where: Its name in errors.
        config: `source.splits` decides where it is set.
        labelled: Images may lie in the folder of a split itself, for a list or their names tell their classes.

    Raises:
        DataError: two readings are possible. Says what to set.
    """
    if config.given_splits:
        return _given_splits(root, where, config.given_splits)
    tops = root.with_images()
    named = split_names(tops)
    deep = {name: split for name, split in named.items() if tops[name].has_classes or labelled}
    if "train" not in deep.values():
        _refuse_other_levels(root, where, named)
        return {"": None}
    found: dict[str, Split | None] = {}
    order = ("train", "val", "test", None)
    for name, split in sorted(named.items(), key=lambda each: order.index(each[1])):
        if split is None:
            _stop(where, f"{name}/ may be the validation or the test split", f"set source.splits to {_setting(named, name)}")
        if twin := next((other for other in found if found[other] == split), None):
            what = f"{twin} and {name}/ are both the split {split} by their names"
            one = {each: place for place, each in reversed(named.items()) if each} | {split: name}
            setting = ", ".join(f"{each}: {path}" for each, path in one.items())
            _stop(where, what, f"set source.splits to {{{setting}}}, or name one of them in source.ignore")
        found[f"{name}/"] = split
    for name in split_names(root.children):
        if name not in tops:
            _stop(
                where,
                f"{name}/ has the name of a split and no images in it",
                f"fill or remove it, or set source.ignore to [{name}]",
            )
    for name in sorted(tops.keys() - named.keys()):
        train = next(tops[each] for each, split in deep.items() if split == "train")
        if split_words(name)[0] or tops[name].with_images().keys() & train.with_images().keys():
            _stop(
                where,
                f"{name}/ looks like a split, and its name does not say which",
                f"set source.splits to {_setting(named, name)}, or source.ignore to [{name}]",
            )
    splits = {_descended(root, name): split for name, split in found.items()}
    return splits if "val" in splits.values() else {name: None if split == "train" else split for name, split in splits.items()}


def _given_splits(root: Node, where: str, given: dict[Split, str]) -> dict[str, Split | None]:
    """The folders that `source.splits` names."""
    found: dict[str, Split | None] = {}
    for split, path in given.items():
        path = "" if path.strip("/") == "." else path.strip("/").removeprefix("./")
        node = root.at(path)
        if node is None or not node.total:
            there = ", ".join(f"{name}/" for name in root.with_images()) or "none"
            raise DataError(f"source.splits.{split}: {where} has no images in {path or '.'}/; folders with images: {there}")
        found[f"{path}/" if path else ""] = split if "val" in given or split != "train" else None
    return found


def _refuse_other_levels(root: Node, where: str, named: dict[str, Split | None]) -> None:
    """Raises DataError where the folders are not the classes: they are splits themselves, or the splits lie further down."""
    tops = root.with_images()
    if len(named) > 1 and len(named) == len(tops):
        what = f"{', '.join(f'{name}/' for name in tops)} have the names of splits, and no train/ with classes' folders in it"
        do = "move the images to train/CLASS/IMAGE; or, if these are the classes, set source.splits to {train: .}"
        _stop(where, what, do)
    if any(split is not None for split in named.values()) and any(tops[name].has_classes for name in named):
        others = _some([f"{name}/" for name in tops if name not in named])
        what = f"{', '.join(f'{name}/' for name in named)} have the names of splits beside {others}"
        _stop(
            where, what, "name the training images' folder in source.splits; or, if these are the classes, set it to {train: .}"
        )
    if below := places_of_splits(root):
        many = "one of them" if len(below) > 1 else "it"
        _stop(
            where,
            f"its splits lie in {', '.join(f'{path}/' for path in below)}",
            f"set ALEXNET_SOURCE to {many}: {where}/{below[0]}",
        )
    if len(tops) == 1 and not root.own:
        ((name, only),) = tops.items()
        if len(only.with_images()) > 1:
            _stop(
                where,
                f"all its images lie in {name}/",
                f"if the folders in it are the classes, set ALEXNET_SOURCE to {where}/{name}",
            )


def places_of_splits(root: Node, depth: int = _SPLITS_DEEP) -> list[str]:
    """The folders below, not many levels down, that hold a training split."""
    found = []
    for name, child in root.with_images().items():
        if "train" in (split_names(each for each, node in child.with_images().items() if node.has_classes)).values():
            found.append(name)
        elif depth > 1:
            found += [f"{name}/{path}" for path in places_of_splits(child, depth - 1)]
    return found


def outside(node: Node, places: Collection[str], path: str = "") -> dict[str, int]:
    """The folders beside those of the splits, and how many images they hold."""
    found: dict[str, int] = {}
    for name, child in sorted(node.children.items()):
        at = f"{path}{name}/"
        if any(place.startswith(at) for place in places):
            found |= outside(child, places, at) if at not in places else {}
        else:
            found[at.removesuffix("/")] = child.total
    return found


def _descended(root: Node, path: str) -> str:
    """The split's folder: its only folder again where that repeats its name, as in seg_train/seg_train/CLASS."""
    node = root.at(path.rstrip("/"))
    assert node
    inner = node.with_images()
    last = path.rstrip("/").rpartition("/")[2]
    if not node.own and len(inner) == 1 and split_words(next(iter(inner)))[0] == split_words(last)[0]:
        return _descended(root, f"{path}{next(iter(inner))}/")
    return path


def _setting(named: dict[str, Split | None], name: str) -> str:
    """What `source.splits` could be, with `name` as validation."""
    train = next(each for each, split in named.items() if split == "train")
    return f"{{train: {train}, val: {name}}} or {{train: {train}, test: {name}}}"


def _stop(where: str, what: str, do: str) -> NoReturn:
    raise DataError(f"{where}: {what}; {do} in params.yaml" if "source." in do else f"{where}: {what}; {do}")
