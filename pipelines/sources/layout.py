"""What the folders of a source are taken for: splits, classes, images; and all that is not taken, by name and by suffix.

The rule: a folder is a split when its name says so and the classes' folders lie in it; nothing is guessed between two readings,
and nothing is left out without being counted.
"""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from alexnet.errors import DataError
from alexnet.images.inspect import SUFFIXES, suffix
from alexnet.shards.manifest import Split
from pipelines.sources.base import SourceConfig, SourceFile
from pipelines.sources.known_names import is_container, is_ignored, is_litter, is_preview_folder, split_names, split_words

_NAMED = 5  # names in a message at most
_PLAIN = re.compile(r"[\w.][\w./ -]*")  # a path that YAML reads as it is
_SPECIAL = re.compile(r"[^\w ./-]")
_KINDS = 40  # suffixes in a message at most


_NO_SUFFIX = "without a suffix"
_HINTS = {  # of suffixes, by what a person can do
    ".heic,.heif,.hif": "are photographs of phones, which no library here decodes: convert them to JPEG",
    ".cr2,.cr3,.nef,.arw,.dng,.orf,.raf,.rw2": "are cameras' raw files, which no library here decodes: convert them to JPEG",
    ".jxl,.svg,.psd,.ico,.tga,.exr,.hdr,.pcx,.eps,.xcf": "are pictures that are not read: convert them to JPEG or PNG",
    ".tar": "are archives: unpack them; or, if they are WebDataset shards, `alexnet use webdataset` reads them",
    ".zip,.gz,.tgz,.bz2,.xz,.rar,.7z": "are archives: unpack them, and remove them if that is done",
    ".npy,.npz,.mat,.h5,.hdf5,.pkl,.parquet,.tfrecord,.idx,.bin": "may hold images as numbers: write them out as PNG",
    _NO_SUFFIX: "may be images all the same: give their names one, such as .jpg",
}


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
    development kit or the list of labels does not know, or that has none in its sample. tars: in no split that is named. masks:
    what is said of images that are taken, and may be masks of others.
    """

    suffixes: Counter[str] = field(default_factory=Counter)
    folders: dict[str, int] = field(default_factory=dict)
    loose: list[str] = field(default_factory=list)
    unlabelled: list[str] = field(default_factory=list)
    tars: list[str] = field(default_factory=list)
    litter: Counter[str] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)
    masks: str = ""

    def is_image(self, file: SourceFile, lists: Collection[str] = ()) -> bool:
        """Whether a file is an image by its name; another is counted, unless it is one of the lists that are read."""
        name = file.path.rpartition("/")[2]
        kind = suffix(name)
        if kind not in SUFFIXES and name and name not in lists:
            self.suffixes[kind or _NO_SUFFIX] += 1
        return kind in SUFFIXES

    def lines(self) -> Iterator[str]:
        """What a person is told, a line a kind."""
        if self.suffixes:
            yield f"not taken, files of other kinds: {_counted(self.suffixes)}{hints(self.suffixes)}"
        if self.folders:
            names = (f"{name}/ ({images(count)})" if count else f"{name}/ (no images)" for name, count in self.folders.items())
            yield f"not taken, folders that are no split, or have no class's folder in them: {', '.join(names)}"
        if self.loose:
            yield f"not taken, in no class's folder: {images(len(self.loose))} ({some(self.loose)})"
        if self.unlabelled:
            yield f"of no known class: {images(len(self.unlabelled))} ({some(self.unlabelled)}), the fault unknown_class"
        if self.tars:
            yield f"not taken, in no split that source.splits names: {len(self.tars):,} tars ({some(self.tars)})"
        if self.litter:
            yield f"not taken, left by systems and other programs: {_counted(self.litter)}"
        if fitting := +self.ignored:
            yield f"not taken, as source.ignore says: {_counted(fitting)}"
        if others := sorted(self.ignored.keys() - fitting.keys()):
            yield f"source.ignore: nothing is left out by {some(others)}; a pattern is of a name, or of a path below the source"
        if self.masks:
            yield f"taken, and may be no images of their classes: {self.masks}"


def _counted(counts: Counter[str]) -> str:
    more = f" and {len(counts) - _KINDS:,} kinds more" if len(counts) > _KINDS else ""
    shown = (
        (count, name if name.isprintable() and len(name) < 24 else ascii(name[:24]))
        for name, count in counts.most_common(_KINDS)
    )
    return ", ".join(f"{count:,} {name}" for count, name in shown) + more


def some(names: Sequence[str]) -> str:
    """A few names, and whether there are more."""
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


def images(count: int) -> str:
    """1 image, 2,000 images."""
    return f"{count:,} image{'s' if count != 1 else ''}"


def hints(suffixes: Counter[str]) -> str:
    """What to do about files that may hold images."""
    found = ((sorted(suffixes.keys() & set(kinds.split(","))), hint) for kinds, hint in _HINTS.items())
    kept = ((kinds, hint) for kinds, hint in found if kinds and (kinds != [_NO_SUFFIX] or suffixes[_NO_SUFFIX] > 1))  # LICENSE
    return "".join(f"; {some(kinds)} {hint}" for kinds, hint in kept)


def take(files: Iterable[SourceFile], config: SourceConfig, out: LeftOut) -> list[SourceFile]:
    """The files that may be part of a data set. Litter, previews and what `source.ignore` names are counted in `out`."""
    taken: list[SourceFile] = []
    verdicts: dict[str, str | None] = {"": None}  # of folders: the litter that they are or lie in
    kept, previews = [], set[str]()
    out.ignored.update(dict.fromkeys(config.ignore, 0))
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
        return {"": None}
    found: dict[str, Split | None] = {}
    order = ("train", "val", "test", None)
    for name, split in sorted(named.items(), key=lambda each: order.index(each[1])):
        if split is None:
            stop(where, f"{name}/ may be the validation or the test split", f"set source.splits to {_settings(named, name)}")
        if twin := next((other for other in found if found[other] == split), None):
            what = f"{twin} and {name}/ are both the split {split} by their names"
            one = {each: place for place, each in reversed(named.items()) if each} | {split: name}
            stop(
                where, what, f"move both into one, or set source.splits to {setting(one)}, or name one of them in source.ignore"
            )
        found[f"{name}/"] = split
    for name in split_names(root.children):
        if name not in tops:
            stop(
                where,
                f"{name}/ has the name of a split and no images in it",
                f"fill or remove it, or set source.ignore to [{name}]",
            )
    for name in sorted(tops.keys() - named.keys()):
        train = next(tops[each] for each, split in deep.items() if split == "train")
        if split_words(name)[0] or tops[name].with_images().keys() & train.with_images().keys():
            do = f"set source.splits to {_settings(named, name)}, or source.ignore to [{name}]"
            do += "" if split_words(name)[0] else "; or, if all of them are classes, set source.splits to {train: .}"
            stop(where, f"{name}/ looks like a split, and its name does not say which", do)
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
        place = f"{path}/" if path else ""
        if place in found:
            raise DataError(
                f"source.splits: {found[place] or 'train'} and {split} are both {path or '.'}; name a folder for each"
            )
        found[place] = split if "val" in given or split != "train" else None
    return found


def separate(root: Node, places: Collection[str]) -> dict[str, Node]:
    """The folders of the splits; one that lies in another, as val/ beside the classes, is taken out of that."""
    nodes = {place: node for place in places if (node := root.at(place.rstrip("/")))}
    for place in sorted(nodes, key=len, reverse=True):
        if any(place.startswith(other) for other in nodes if other != place):
            _cut(root, place.rstrip("/").split("/"))
    return nodes


def _cut(node: Node, path: Sequence[str]) -> int:
    """Takes a folder out of those above it; the number of its images."""
    name, *below = path
    child = node.children[name]
    total = _cut(child, below) if below else child.total
    node.total -= total
    if not below or (not child.children and not child.total):
        del node.children[name]
    return total


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
    """The split's folder: its only folder again where that repeats its name or says images, as in seg_train/seg_train/CLASS."""
    node = root.at(path.rstrip("/"))
    assert node
    inner = node.with_images()
    name = next(iter(inner), "")
    last = path.rstrip("/").rpartition("/")[2]
    repeats = split_words(name)[0] == split_words(last)[0] or (is_container(name) and inner[name].has_classes)
    return _descended(root, f"{path}{name}/") if not node.own and len(inner) == 1 and repeats else path


def _settings(named: Mapping[str, Split | None], name: str) -> str:
    """What `source.splits` could be with this folder: as the split that its name says, else as each that there is none of."""
    found = {split: each for each, split in reversed(list(named.items())) if split and each != name}
    said = split_words(name)[0]
    names: list[Split] = ["train", "val", "test"]
    free = [split for split in names if split == said] or [split for split in names if split not in found] or names[1:]
    return " or ".join(setting({"train": found["train"], **found, split: name}) for split in free)


def setting(splits: Mapping[Split, str]) -> str:
    """A value of `source.splits`, as params.yaml has it."""
    return (
        f"{{{', '.join(f'{split}: {path if _PLAIN.fullmatch(path) else json.dumps(path)}' for split, path in splits.items())}}}"
    )


def kept(places: Mapping[str, Split | None]) -> str:
    """The value of `source.splits` by which these folders are the splits, whatever else is found."""
    return setting({split or "train": place.rstrip("/") or "." for place, split in places.items()})


def ignoring(path: str) -> str:
    """The setting of `source.ignore` that leaves this path out; what YAML or a pattern would read is any character."""
    return f"source.ignore to [{json.dumps(_SPECIAL.sub('?', path), ensure_ascii=False)}] in params.yaml"


def stop(where: str, what: str, do: str) -> NoReturn:
    """Raises DataError: what was found, and what to do."""
    raise DataError(f"{where}: {what}; {do} in params.yaml" if "source." in do else f"{where}: {what}; {do}")
