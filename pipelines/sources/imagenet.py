"""The source `imagenet`: the ILSVRC archives as they are distributed, on disk or in a bucket, read in place; or unpacked.

    ILSVRC2012_img_train.tar        1,000 tars, n01440764.tar holding n01440764_10026.JPEG and so on
    ILSVRC2012_img_val.tar          ILSVRC2012_val_00000001.JPEG and so on
    ILSVRC2012_devkit_t12.tar.gz    the synsets and the validation images' labels

ILSVRC2010 is the same with other names. Unpacked: train/WNID/IMAGE and
val/WNID/IMAGE, with or without the devkit, or val/IMAGE with it.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from alexnet.errors import DataError
from alexnet.images import suffix
from pipelines import console, places
from pipelines.files import write_whole
from pipelines.sources import ArchiveConfig, File, Item, Part, Source
from pipelines.sources.devkit import YEARS, Devkit, Year, read_devkit
from pipelines.sources.folder import FolderSource, Tree, tree_at
from pipelines.sources.forward import BLOCK, Member, following, header, walk

_WNID = r"n\d{8}"
_TRAIN_TAR = re.compile(rf"({_WNID})\.tar")
_TRAIN_IMAGE = re.compile(rf"({_WNID}_\d+)\.JPEG")
_VAL_IMAGE = re.compile(r"(ILSVRC20\d\d_val_(\d{8}))\.JPEG")
_KNOWN = places.LOCAL / "sources" / "digests.json"  # of archives, by path, size and stamp: they are read once


@dataclass(frozen=True)
class ArchivesSource:
    """One year's archives."""

    tree: Tree
    where: str
    year: Year
    archives: tuple[ArchiveConfig, ...]

    def files(self) -> list[File]:
        """The three archives. Those with a known digest are read whole when they are new."""
        files = sorted(self._files.values(), key=lambda file: file.path)
        for archive in self.archives:
            _check_digest(self.tree, self.where, self._files, archive)
        assert self._devkit  # raises when it is damaged
        return files

    def names(self) -> dict[str, str]:
        """The devkit's classes."""
        return self._devkit.names

    def count(self) -> int:
        """By the devkit."""
        return self._devkit.train_images + len(self._devkit.val_wnids)

    def parts(self) -> Iterator[Part]:
        """The validation archive, the longest piece, and then every synset's tar."""
        yield Part(path=self.year.val, size=self._files[self.year.val].bytes, split="val")
        for member in self._synset_tars():
            match = _TRAIN_TAR.fullmatch(member.name)
            if match is None:
                raise DataError(
                    f"{self.where}/{self.year.train}: member {member.name!r} at byte {member.offset - BLOCK:,}; "
                    "allowed: n00000000.tar"
                )
            yield Part(path=self.year.train, offset=member.offset, size=member.size, split="train", wnid=match[1])

    def walk(self, part: Part) -> Iterator[tuple[Item, bytes]]:
        """The images of one tar, read once from front to back."""
        where = f"{self.where}/{part.path}"
        pieces = self.tree.stream(part.path, part.offset, part.size)
        for member, data in walk(pieces, part.offset, part.offset + part.size, where):
            key, wnid = self._named(part, member, where)
            yield Item(key, part.split, wnid, part.path, member.offset, member.size, suffix(member.name)), data

    def read(self, path: str, offset: int, size: int) -> bytes:
        """A ranged read."""
        return self.tree.read(path, offset, size)

    def __reduce__(self) -> tuple[type["ArchivesSource"], tuple[Tree, str, Year, tuple[ArchiveConfig, ...]]]:
        return ArchivesSource, (self.tree, self.where, self.year, self.archives)  # sent without what it has read

    def _named(self, part: Part, member: Member, where: str) -> tuple[str, str]:
        """Key and wnid of an image. The number of a validation image that the devkit does not have is no wnid."""
        match = (_TRAIN_IMAGE if part.split == "train" else _VAL_IMAGE).fullmatch(member.name)
        if match is None:
            allowed = "n00000000_0.JPEG" if part.split == "train" else f"{self.year.name}_val_00000000.JPEG"
            raise DataError(f"{where}: member {member.name!r} at byte {member.offset - BLOCK:,}; allowed: {allowed}")
        if part.split == "train":
            # An image in another synset's tar has no label that could be trusted.
            return match[1], part.wnid if match[1].startswith(f"{part.wnid}_") else ""
        number = int(match[2])
        known = self._devkit.val_wnids
        return match[1], known[number - 1] if 1 <= number <= len(known) else ""

    def _synset_tars(self) -> Iterator[Member]:
        at, end = 0, self._files[self.year.train].bytes
        while at < end:
            where = f"{self.where}/{self.year.train}"
            member = header(self.tree.read(self.year.train, at, BLOCK), at, end, where)
            if member is None:
                return
            yield member
            at = following(member)
        raise DataError(f"{self.where}/{self.year.train}: no end mark at byte {at:,}; the archive is cut, fetch it again")

    @cached_property
    def _files(self) -> dict[str, File]:
        found = {file.path: file for file in self.tree.list()}
        wanted = (self.year.train, self.year.val, self.year.devkit)
        if missing := [name for name in wanted if name not in found]:
            raise DataError(f"{self.where}: has no {', '.join(missing)}; imagenet needs {', '.join(wanted)}")
        return {name: found[name] for name in wanted}

    @cached_property
    def _devkit(self) -> Devkit:
        return _devkit_at(self.tree, self._files[self.year.devkit], self.year, self.where)


def _devkit_at(tree: Tree, file: File, year: Year, where: str) -> Devkit:
    return read_devkit(tree.read(file.path, 0, file.bytes), year, f"{where}/{file.path}")


def _check_digest(tree: Tree, where: str, files: dict[str, File], archive: ArchiveConfig) -> None:
    """Raises DataError when an archive is not the published one. What was read once and did not change is believed."""
    if archive.file not in files:
        return
    file = files[archive.file]
    mark = f"{where}/{file.path} {file.bytes} {file.stamp}"
    try:
        known = json.loads(_KNOWN.read_text())
    except (OSError, ValueError):
        known = {}
    if mark not in known:
        digest = hashlib.md5(usedforsecurity=False)
        pieces = tree.stream(file.path, 0, file.bytes)
        for piece in console.track(pieces, -(-file.bytes >> 20), f"md5 of {file.path}", unit="MiB"):
            digest.update(piece)
        known[mark] = digest.hexdigest()
        write_whole(_KNOWN, json.dumps(known, indent=1, sort_keys=True).encode())
    if known[mark] != archive.md5:
        raise DataError(
            f"{where}/{file.path}: MD5 is {known[mark]}, its publisher's is {archive.md5}; fetch it again, "
            "or change source.archives in params.yaml if it is another one on purpose"
        )


def open_imagenet(archives: tuple[ArchiveConfig, ...]) -> Source:
    """The archives, or the unpacked folders, at ALEXNET_SOURCE."""
    place = places.source()
    if not place:
        raise DataError("ALEXNET_SOURCE: not set; `imagenet` reads the archives in the folder or s3://BUCKET/PREFIX it names")
    tree, where = tree_at(place), place.rstrip("/")
    top = {file.path: file for file in tree.list()}
    for year in YEARS:
        if year.train in top or year.val in top:
            return ArchivesSource(tree, where, year, archives)
    if not any(path.startswith("train/") for path in top):
        raise DataError(
            f"{where}: has neither archives nor unpacked images; imagenet needs {YEARS[0].train}, {YEARS[0].val} and "
            f"{YEARS[0].devkit}, or train/WNID/IMAGE and val/WNID/IMAGE"
        )
    for year in YEARS:
        if year.devkit in top:
            devkit = _devkit_at(tree, top[year.devkit], year, where)
            labels = {f"{year.name}_val_{number:08}.JPEG": wnid for number, wnid in enumerate(devkit.val_wnids, 1)}
            return FolderSource(tree, where, devkit.names, named=True, labels=labels)
    return FolderSource(tree, where, named=True)
