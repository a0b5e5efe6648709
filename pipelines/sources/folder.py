"""The source `folder`: one folder a class, on disk or in a bucket, with or without given splits.

hat/1.jpg                                  the split is decided by the image's digest
train/hat/1.jpg, val/hat/2.jpg             given, by any usual name: Training, valid, seg_test, ...
test/hat/3.jpg                             where it is there: what the report is on; without a val, train is split by digest
val/images/4.jpg, val/val_annotations.txt  as tiny-imagenet-200 has it: the list says the classes
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from itertools import islice

from alexnet.errors import DataError
from alexnet.images.inspect import SUFFIXES, suffix
from alexnet.shards.manifest import Split
from pipelines.sources.archives.devkit import Devkit
from pipelines.sources.archives.tar_stream import LARGEST
from pipelines.sources.base import Partition, SourceConfig, SourceFile, SourceImage, safe_keys
from pipelines.sources.class_names import LABEL_LISTS, LISTS, read_class_names, read_labels
from pipelines.sources.known_names import alike, shown
from pipelines.sources.layout import LeftOut, Node, find_splits, hints, images, kept, outside, separate, stop, take, tree
from pipelines.sources.levels import check_levels
from pipelines.sources.masks import Masks, find_masks
from pipelines.sources.places import Folder

_IMAGES_PER_PARTITION = 256
_NAMED = 5  # classes that an error names at most
_WNID = re.compile(r"(n\d{8})_")
_LISTS = {*LISTS, *LABEL_LISTS, "wnids.txt"}  # they are read, or say nothing that is not known
_ANY = SourceConfig("folder", 0.25, ())


@dataclass(frozen=True)
class Found:
    """What the files of a source are taken for.

    files: all but litter. places: the folders of the splits. out: what is not taken. images: split, wnid and file of each, by
    path. counts: of images. deep: images in folders below a class's.
    """

    files: list[SourceFile]
    places: dict[str, Split | None]
    out: LeftOut
    images: list[tuple[Split | None, str, SourceFile]] = field(default_factory=list)
    counts: Counter[tuple[Split | None, str]] = field(default_factory=Counter)
    deep: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class FolderSource:
    """One folder a class.

    where: the source's name in errors. words: readable names of classes, where they are known. name_is_key: an image's key is
    its own name, as in ImageNet, whose test images have no classes and are left out; otherwise the class comes before it.
    devkit: an image that contradicts it has no class. config: which folders are splits and what is left out, where it says so.
    """

    folder: Folder
    where: str
    words: dict[str, str] = field(default_factory=dict)
    name_is_key: bool = False
    devkit: Devkit | None = None
    config: SourceConfig = _ANY

    def files(self) -> list[SourceFile]:
        """All files, images or not, but litter and what `source.ignore` names."""
        return [file for file in self._found.files if not file.is_folder]

    def images(self) -> Iterator[SourceImage]:
        """Every file with an image's suffix that lies in a class's folder, or whose class a list tells, by path."""
        found = self._found.images
        for key, (split, wnid, file) in zip(_keys(found, self.name_is_key), found, strict=True):
            yield SourceImage(key, split, wnid, file.path, 0, file.size, suffix(file.path))

    def class_names(self) -> dict[str, str]:
        """The devkit's; without one, a class is called what its folder is called, unless `words` or a list there names it."""
        if self.devkit:
            return self.devkit.names
        words = self.words or read_class_names(self.folder, self._found.files, self.where)
        return {wnid: words.get(wnid, wnid) for wnid in sorted({wnid for _, wnid, _ in self._found.images if wnid})}

    def num_images(self) -> int:
        """All images."""
        return len(self._found.images)

    def layout(self) -> str:
        """What the folders were understood as, in one line."""
        found = self._found
        counts = Counter(split for split, _, _ in found.images)
        text = f"{images(len(found.images))} of {len(self.class_names()):,} classes"
        if [*found.places] != [""]:
            parts = (f"{place or './'} ({split or 'train'}, {counts[split]:,})" for place, split in found.places.items())
            text += f" in {', '.join(parts)}"
        text += f"; {'' if '' in found.places else 'SPLIT/'}CLASS/{'.../' if found.deep else ''}IMAGE"
        if found.deep:
            text += f" ({images(len(found.deep))} in folders inside a class's folder, taken for that class: {found.deep[0]})"
        if None in found.places.values():
            text += "; no validation split of its own: source.val_fraction is drawn from the training images"
        return text

    def left_out(self) -> LeftOut:
        """What is not taken."""
        return self._found.out

    def partitions(self) -> Iterator[Partition]:
        """Some images each."""
        images = self.images()
        while some := tuple(islice(images, _IMAGES_PER_PARTITION)):
            yield Partition(some)

    def read_images(self, partition: Partition) -> Iterator[tuple[SourceImage, bytes]]:
        """Whole files."""
        for image in partition.images:
            if image.size > LARGEST:
                raise DataError(f"{self.where}/{image.path}: has {image.size:,} bytes, more than any image; remove it")
            yield image, self.read(image.path, image.offset, image.size)

    def read(self, path: str, offset: int, size: int) -> bytes:
        """A range of a file."""
        return self.folder.read(path, offset, size)

    def __reduce__(self) -> tuple[type["FolderSource"], tuple[object, ...]]:
        # Without the long listing.
        return FolderSource, (self.folder, self.where, self.words, self.name_is_key, self.devkit, self.config)

    @cached_property
    def _found(self) -> Found:
        out = LeftOut()
        files = take(self.folder.list(), self.config, out)
        root = tree(files)
        labels = self.devkit.val_wnids if self.devkit else read_labels(self.folder, files, self.where)
        places = find_splits(root, self.where, self.config, labelled=self.name_is_key or bool(labels))
        if not self.config.given_splits and not self.name_is_key:
            check_levels(root, self.where, places, files)
        nodes = separate(root, places)
        classes = set(self.devkit.names) if self.devkit else _classes(nodes, places)
        for place in [place for place, split in places.items() if split == "test"]:
            # Images in `test` itself, or in folders of no class, are to be predicted.
            is_apart = not any(place.startswith(other) for other in places if other != place)
            if self.name_is_key or (is_apart and not _classes(nodes, {place: None}) & classes):
                del places[place]
        found = Found(files, places, out)
        if "" not in places:
            out.folders |= outside(root, places)
        self._classify(found, labels, classes)
        self._check(found, nodes, bool(labels), classes)
        if not self.name_is_key and (masks := find_masks((file.path, wnid) for _, wnid, file in found.images)):
            self._refuse_masks(masks, places, out)
        return found

    def _classify(self, found: Found, labels: Mapping[str, str], classes: set[str]) -> None:
        """Splits and classes of all files, or where those that have none are counted."""
        inner_first = dict(sorted(found.places.items(), key=lambda each: -len(each[0])))
        place_of = cache(partial(_place_of, inner_first))
        for file in found.files:
            folder, _, name = file.path.rpartition("/")
            place = place_of(folder)
            if not found.out.is_image(file, _LISTS):
                continue
            if place is None:
                found.out.loose += [] if folder else [file.path]
                continue
            at, split, class_folder, is_deep = place
            wnid = self._wnid(split, class_folder, name.rpartition(".")[0], labels, classes)
            if not wnid and not self.devkit and not (split == "val" and labels):
                if at:
                    raise DataError(f"{self.where}/{file.path}: {self._misplaced(at, split, name)}")
                found.out.loose.append(file.path)
                continue
            found.images.append((split, wnid, file))
            found.counts[split, wnid] += 1
            if not wnid:
                found.out.unlabelled.append(file.path)
            elif is_deep and wnid == class_folder:
                found.deep.append(file.path)

    def _wnid(self, split: Split | None, folder: str, key: str, labels: Mapping[str, str], classes: set[str]) -> str:
        if self.devkit:
            return self.devkit.wnid(split, folder, key)
        if split == "val" and labels:
            wnid = labels.get(key, "")
            return wnid if (wnid in classes or not classes) and (folder not in classes or folder == wnid) else ""
        if not folder and self.name_is_key and (match := _WNID.match(key)):
            return match[1]
        return folder

    def _misplaced(self, place: str, split: Split | None, name: str) -> str:
        if self.name_is_key and split == "val":
            return (
                f"nothing tells the classes of the images in {place}; put ILSVRC2012_devkit_t12.tar.gz or Kaggle's "
                f"LOC_val_solution.csv into {self.where}, or move them to {place}WNID/"
            )
        if name.startswith("ILSVRC"):
            return "one of ImageNet's images, whose classes a list tells; `alexnet use imagenet` reads them"
        return f"an image in no class's folder; move it to {place}CLASS/, or remove it"

    def _refuse_masks(self, masks: Masks, places: Mapping[str, Split | None], out: LeftOut) -> None:
        setting = f"source.ignore to {json.dumps([*self.config.ignore, *masks.patterns], ensure_ascii=False)}"
        if self.config.given_splits:
            out.masks = f"{masks}; if they are, set {setting} in params.yaml"
            return
        stop(self.where, f"{masks}", f"set {setting}; or, if they are images of their classes, source.splits to {kept(places)}")

    def _check(self, found: Found, nodes: Mapping[str, Node], has_labels: bool, classes: set[str]) -> None:
        if not found.images:
            others = [f"{count:,} {kind}" for kind, count in found.out.suffixes.most_common(_NAMED)]
            others += [f"{number:,} files that source.ignore leaves out"] if (number := found.out.ignored.total()) else []
            raise DataError(
                f"{self.where}: no images in class folders; it needs CLASS/IMAGE, or train/CLASS/IMAGE and val/CLASS/IMAGE, "
                f"with IMAGE ending in .jpg, .png or {len(SUFFIXES) - 2} others; it has {', '.join(others) or 'no files'}"
                f"{hints(found.out.suffixes)}"
            )
        splits = dict.fromkeys(found.places.values())
        for place, split in found.places.items():
            inside = _classes(nodes, {place: None}, with_empty=True)
            if split == "val" and not has_labels and not inside & classes:
                raise DataError(
                    f"{self.where}: {place} has no folder of a class of the training images; needs {place}CLASS/IMAGE"
                )
            if not self.devkit and not (split == "val" and has_labels):
                classes |= inside or {wnid for _, wnid, _ in found.images if wnid}
        if self.devkit:
            splits = {"train": None}  # a published set; validation images may lie in one folder
        empty = sorted(
            f"{split}/{wnid}" if split else wnid for split in splits for wnid in classes if not found.counts[split, wnid]
        )
        if empty:
            more = f" and {len(empty) - _NAMED:,} more" if len(empty) > _NAMED else ""
            twins = [twin for twin in alike(classes) if {name.rpartition("/")[2] for name in empty} & {*twin}]
            if twins:
                more += f" ({' and '.join(map(shown, sorted(twins[0])))} differ in spelling alone: give them one name)"
            strange = sorted(_classes(nodes, {"train/": None}) - classes)
            also = f"; {strange[0]} is no class of the development kit: rename it" if self.devkit and strange else ""
            raise DataError(
                f"{self.where}: no images in class {', '.join(empty[:_NAMED])}{more}; add some, remove the class's folder, "
                f"or name it in source.ignore{also}"
            )
        if len(classes) < 2:
            raise DataError(f"{self.where}: one class only, {classes.pop()}; it takes two to tell apart")


def _classes(nodes: Mapping[str, Node], places: Mapping[str, Split | None], *, with_empty: bool = False) -> set[str]:
    """The folders of classes in the training split, or where there are none in the source."""
    names: set[str] = set()
    for place, split in places.items():
        node = nodes.get(place)
        if node and split in (None, "train"):
            names |= {name for name, child in node.children.items() if child.total or with_empty}
    return names


def _place_of(places: Mapping[str, Split | None], folder: str) -> tuple[str, Split | None, str, bool] | None:
    """The split's folder that a folder lies in, its split, the class's folder, and whether this one lies below it."""
    for place, split in places.items():
        if f"{folder}/".startswith(place):
            name, *below = f"{folder}/".removeprefix(place).strip("/").split("/")
            return place, split, name, bool(below)
    return None


def _keys(found: list[tuple[Split | None, str, SourceFile]], name_is_key: bool) -> Iterator[str]:
    """CLASS_NAME, or NAME."""
    names = []
    for _, wnid, file in found:
        stem, prefix = file.path.rpartition("/")[2].rpartition(".")[0], "" if name_is_key else f"{wnid}_"
        names.append(stem if stem.startswith(prefix) else prefix + stem)
    return safe_keys(names, [file.path for _, _, file in found])
