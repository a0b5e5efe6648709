"""The source `webdataset`: samples in WebDataset tars, on disk or in a bucket, read where they lie.

imagenet-train-000000.tar, imagenet-val-000000.tar   a split by its name, as folders are: train/0.tar, test/0.tar
shard-000000.tar                                     no split: it is decided by the image's digest
classnames.txt, classes.json, ...                    names of classes, by number or by wnid

The headers of a tar are read once; what they say is kept in .local/sources/webdataset until the tar changes.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from fnmatch import fnmatchcase
from functools import cached_property, partial
from itertools import groupby, islice
from pathlib import Path

from alexnet.errors import DataError
from alexnet.files.atomic import atomic_write_bytes
from alexnet.files.sealed import read_sealed, seal
from alexnet.images.inspect import suffix
from alexnet.shards.manifest import Split
from pipelines.runtime import console, environment
from pipelines.runtime.executor import map_unordered
from pipelines.sources.archives import samples
from pipelines.sources.archives.samples import Member, TarSamples, read_samples
from pipelines.sources.archives.tar_stream import LARGEST, ReadAhead
from pipelines.sources.base import Partition, SourceConfig, SourceFile, SourceImage, safe_keys
from pipelines.sources.class_names import LISTS, read_class_names
from pipelines.sources.known_names import split_names, split_words
from pipelines.sources.layout import LeftOut, take
from pipelines.sources.places import Folder, LocalFolder

FOLDER = environment.SHARED / "sources" / "webdataset"
NUMBERED = "classnames.txt"  # a name in every line, of class 0 first
_PACKED = re.compile(r".*\.(tgz|tar\.(gz|bz2|xz|zst))")
_IMAGES_PER_PARTITION = 256
_NAMED = 5


@dataclass(frozen=True)
class Listed:
    """What the files of a source are taken for. files: all that may be part of it. splits: of every tar, by its path.

    names: of classes by number, from classnames.txt.
    """

    files: list[SourceFile]
    splits: dict[str, Split | None]
    images: list[SourceImage]
    names: dict[str, str]
    out: LeftOut


@dataclass(frozen=True)
class WebDatasetSource:
    """Tars of samples. where: the source's name in errors."""

    folder: Folder
    where: str
    config: SourceConfig

    def files(self) -> list[SourceFile]:
        """The tars, and what lies beside them."""
        return [file for file in self._listed.files if not file.is_folder]

    def images(self) -> Iterator[SourceImage]:
        """Every sample's image, in the tars' order."""
        return iter(self._listed.images)

    def num_images(self) -> int:
        """All images."""
        return len(self._listed.images)

    def class_names(self) -> dict[str, str]:
        """By class: names from a list that lies beside the tars; without one, a class is called what it is."""
        classes = {image.wnid for image in self._listed.images if image.wnid}
        names = read_class_names(self.folder, self._listed.files, self.where) | self._listed.names
        if all(wnid.isdecimal() for wnid in classes):
            width = max(len(wnid) for wnid in classes)
            names = {_padded(number, width): name for number, name in names.items() if number.isdecimal()}
            classes |= names.keys() if self._listed.names else set()
        return {wnid: names.get(wnid, wnid) for wnid in sorted(classes)}

    def layout(self) -> str:
        """What the tars were understood as, in one line."""
        listed = self._listed
        tars, images = Counter[tuple[str, Split | None]](), Counter[tuple[str, Split | None]]()
        for path, split in listed.splits.items():
            tars[_pattern(path), split] += 1
        for image in listed.images:
            images[_pattern(image.path), listed.splits[image.path]] += 1
        has_splits = any(listed.splits.values())
        parts = []
        for (pattern, split), count in tars.items():
            said = f"{split or 'train'}, " if has_splits else ""
            parts.append(f"{pattern}.tar ({said}{count:,} tars, {images[pattern, split]:,})")
        text = f"{len(listed.images):,} images of {len(self.class_names()):,} classes in {', '.join(parts)}"
        if None in listed.splits.values():
            text += "; no validation split of its own: source.val_fraction is drawn from the training images"
        return text

    def left_out(self) -> LeftOut:
        """What is not taken."""
        return self._listed.out

    def partitions(self) -> Iterator[Partition]:
        """Some images of one tar each."""
        for _, images in groupby(self._listed.images, lambda image: image.path):
            while some := tuple(islice(images, _IMAGES_PER_PARTITION)):
                yield Partition(some)

    def read_images(self, partition: Partition) -> Iterator[tuple[SourceImage, bytes]]:
        """Images of one tar, from front to back."""
        last = partition.images[-1]
        read = ReadAhead(partial(self.folder.read, last.path), last.offset + last.size)
        for image in partition.images:
            if image.size > LARGEST:
                raise DataError(f"{self.where}/{image.path}: {image.key} has {image.size:,} bytes, more than any image")
            yield image, read(image.offset, image.size)

    def read(self, path: str, offset: int, size: int) -> bytes:
        """A range of a tar."""
        return self.folder.read(path, offset, size)

    def __reduce__(self) -> tuple[type["WebDatasetSource"], tuple[object, ...]]:
        # Without the long listing.
        return WebDatasetSource, (self.folder, self.where, self.config)

    @cached_property
    def _listed(self) -> Listed:
        out = LeftOut()
        files = take(self.folder.list(), self.config, out)
        paths = [file.path for file in files if suffix(file.path) == ".tar"]
        if packed := next((file.path for file in files if _PACKED.fullmatch(file.path.lower())), None):
            raise DataError(
                f"{self.where}/{packed}: is compressed; no image of it can be read without all before it: unpack it to a .tar, "
                "or name it in source.ignore"
            )
        if not paths:
            raise DataError(f"{self.where}: has no tars; the source `webdataset` needs files NAME.tar of samples")
        splits = find_splits(paths, self.config, self.where)
        out.tars += [path for path in paths if path not in splits]
        for file in files:
            if suffix(file.path) != ".tar" and out.is_image(file, (*LISTS, NUMBERED)):
                out.loose.append(file.path)
        found = self._read_tars([file for file in files if file.path in splits])
        names = _numbered_names(self.folder, files)
        images = _images(found, splits, len(names))
        for each in found.values():
            out.suffixes.update(each.others)
            out.litter.update(each.litter)
        out.unlabelled += [image.key for image in images if not image.wnid]
        if len(classes := {image.wnid for image in images} - {""}) < 2:
            what = (
                f"one class only, {classes.pop()!r}" if classes else "no image whose class is told" if images else "no images"
            )
            raise DataError(
                f"{self.where}: the tars hold {what}; a sample is KEY.jpg and KEY.cls, or KEY.json with one of "
                f"{', '.join(samples.KEYS)}; set source.members in params.yaml where others are meant"
            )
        return Listed(files, splits, images, names, out)

    def _read_tars(self, files: Sequence[SourceFile]) -> dict[str, TarSamples]:
        """What every tar holds, by path, in the order of the files. Tars that have not changed are not read again."""
        found: dict[str, TarSamples] = {}
        notes = {file.path: FOLDER / f"{self._digest(file)}.json" for file in files}
        for old in set(FOLDER.glob("*.json")) - {*notes.values()}:
            old.unlink(missing_ok=True)
        for file in files:
            if data := read_sealed(notes[file.path]):
                found[file.path] = _unpacked(data)
        todo = [file for file in files if file.path not in found]
        results = map_unordered(partial(_read_tar, self.folder, self.config, self.where), todo)
        for path, one in console.track(results, len(todo), "tars", "tars") if todo else ():
            atomic_write_bytes(notes[path], seal(_packed(one)))
            found[path] = one
        return {file.path: found[file.path] for file in files}

    def _digest(self, file: SourceFile) -> str:
        code = Path(samples.__file__).read_text(encoding="utf-8")
        return hashlib.sha256(repr((self.where, file, self.config.members, code)).encode()).hexdigest()[:32]


def _numbered_names(folder: Folder, files: Sequence[SourceFile]) -> dict[str, str]:
    """Names by number from classnames.txt; empty if there is none."""
    file = next((file for file in files if file.path == NUMBERED), None)
    lines = folder.read(NUMBERED, 0, file.size).decode("utf-8", "replace").splitlines() if file else []
    return {str(number): name.strip() for number, name in enumerate(lines)}


def find_splits(paths: Sequence[str], config: SourceConfig, where: str) -> dict[str, Split | None]:
    """The split of every tar that is taken: by `source.splits`, else by their names; None where validation is to be drawn.

    Raises:
        DataError: two readings are possible. Says what to set.
    """
    tars = Counter(_pattern(path) for path in paths)
    there = ", ".join(f"{pattern}.tar ({count:,})" for pattern, count in tars.most_common(_NAMED))
    found: dict[str, Split | None] = {}
    if config.given_splits:
        for split, given in config.given_splits.items():
            own = [path for path in paths if _fits(path, given)]
            if not own:
                raise DataError(
                    f"source.splits.{split}: no tar of {where} fits {given!r}; write a folder, a prefix, or a pattern with *; "
                    f"there are {there}"
                )
            if twice := next((path for path in own if path in found), None):
                raise DataError(f"source.splits: {twice} fits both {found[twice]} and {split}; write longer prefixes")
            found |= dict.fromkeys(own, split)
    else:
        named = split_names(tars)
        unclear = [each for each in tars if named.get(each) is None and (named or split_words(each)[0])]
        if unclear or (named and "train" not in named.values()):
            each = next(iter(unclear), next(iter(named), ""))
            raise DataError(
                f"{where}: the name of {each}.tar does not say which split it is; there are {there}; set source.splits to "
                "{train: PREFIX, val: PREFIX} in params.yaml, or name tars in source.ignore"
            )
        found = {path: named.get(_pattern(path)) for path in paths}
    if "val" not in found.values():
        found = {path: None if split == "train" else split for path, split in found.items()}
    return {path: found[path] for path in paths if path in found}


def _fits(path: str, given: str) -> bool:
    """Whether a tar is the one given, lies in that folder, begins with that prefix, or fits that pattern."""
    given = given.removeprefix("./")
    return given == "." or path.startswith(given) or fnmatchcase(path, given)


def _pattern(path: str) -> str:
    """A tar's path with its numbers as asterisks: the tars of a split share it."""
    return re.sub(r"\d+", "*", path.removesuffix(".tar"))


def _images(found: dict[str, TarSamples], splits: dict[str, Split | None], classes: int) -> list[SourceImage]:
    """All images of all tars. Classes that are all numbers are filled up with zeros, so that their order is the numbers'.

    classes: how many there are at least.
    """
    rows = [(path, member, wnid) for path, each in found.items() for member, wnid in each.samples]
    if all(wnid.isdecimal() for _, _, wnid in rows if wnid):
        width = max(len(str(max(classes - 1, 0))), *(len(str(int(wnid))) for _, _, wnid in rows if wnid), 0)
        rows = [(path, member, _padded(wnid, width) if wnid else "") for path, member, wnid in rows]
    keys = safe_keys(
        [member.key.removeprefix("./") for _, member, _ in rows], [f"{path}/{member.name}" for path, member, _ in rows]
    )
    return [
        SourceImage(key, splits[path], wnid, path, member.offset, member.size, suffix(member.name))
        for key, (path, member, wnid) in zip(keys, rows, strict=True)
    ]


def _padded(number: str, width: int) -> str:
    return str(int(number)).zfill(width)


def _read_tar(folder: Folder, config: SourceConfig, where: str, file: SourceFile) -> tuple[str, TarSamples]:
    """Reads the headers of a tar: one by one from the disk, a few MiB at a time from a bucket, which is slow to answer."""
    read = partial(folder.read, file.path)
    ahead = read if isinstance(folder, LocalFolder) else ReadAhead(read, file.size)
    return file.path, read_samples(ahead, file.size, config.members, f"{where}/{file.path}")


def _packed(found: TarSamples) -> bytes:
    rows = [(*astuple(member), wnid) for member, wnid in found.samples]
    return json.dumps([rows, found.others, found.litter]).encode()


def _unpacked(data: bytes) -> TarSamples:
    rows, others, litter = json.loads(data)
    return TarSamples([(Member(*row[:3]), row[3]) for row in rows], Counter(others), Counter(litter))
