"""The source `imagenet`: the archives of ILSVRC as distributed, on disk or in a bucket, read without unpacking; or unpacked.

    ILSVRC2012_img_train.tar        1,000 tars, n01440764.tar holding n01440764_10026.JPEG and so on
    ILSVRC2012_img_val.tar          ILSVRC2012_val_00000001.JPEG and so on
    ILSVRC2012_devkit_t12.tar.gz    the synsets and the validation images' labels

ILSVRC2010 has other names, and a fourth archive, patch_images.tar, of
images that take the place of blank ones. Unpacked: train/WNID/IMAGE and
val/WNID/IMAGE, with or without the devkit, or val/IMAGE with it.
"""

import hashlib
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import pairwise

from alexnet.errors import DataError
from alexnet.files.atomic import atomic_write_bytes
from alexnet.images.inspect import SUFFIXES, suffix
from pipelines.runtime import console, environment
from pipelines.sources.base import ArchiveConfig, Partition, Source, SourceFile, SourceImage
from pipelines.sources.devkit import YEARS, Devkit, Year, read_devkit
from pipelines.sources.folder import Folder, FolderSource, Labels, folder_at
from pipelines.sources.tar_stream import BLOCK, LARGEST, Member, iter_members, parse_header, split_points

_WNID = r"n\d{8}"
_TRAIN_TAR = re.compile(rf"({_WNID})\.tar")
_TRAIN_IMAGE = re.compile(rf"({_WNID}_\d+)\.JPEG")
_VAL_IMAGE = re.compile(r"(ILSVRC20\d\d_val_(\d{8}))\.JPEG")
_PATCH = re.compile(r"(?:.*/)?(train|val)/([^/]+\.JPEG)")
_GZIP = b"\x1f\x8b"
_DIGESTS = environment.LOCAL / "sources" / "digests.json"  # of archives, by path, size and stamp: computed once
_PARTITION_BYTES = 128 << 20  # of an archive: about what a synset's tar has


@dataclass(frozen=True)
class ArchivesSource:
    """One year's archives. where: the place's name in errors; archives: those whose MD5 is checked."""

    folder: Folder
    where: str
    year: Year
    archives: tuple[ArchiveConfig, ...]

    def files(self) -> list[SourceFile]:
        """The archives. Raises DataError when one is missing, or its MD5 is not the published one."""
        files = sorted(self._files.values(), key=lambda file: file.path)
        for archive in self.archives:
            _check_digest(self.folder, self.where, self._files, archive)
        assert self._devkit  # raises when it is damaged
        return files

    def class_names(self) -> dict[str, str]:
        """The devkit's."""
        return self._devkit.names

    def num_images(self) -> int:
        """As many as the devkit says."""
        return self._devkit.train_images + len(self._devkit.val_wnids)

    def partitions(self) -> Iterator[Partition]:
        """Ranges of the validation archive, then of every synset's tar, most of which are one partition."""
        yield from self._partitions_of(Partition(path=self.year.val, size=self._files[self.year.val].size, split="val"))
        for member in self._synset_tars():
            wnid = self._match(_TRAIN_TAR, member, self.year.train, "n00000000.tar")[1]
            tar = Partition(path=self.year.train, offset=member.offset, size=member.size, split="train", wnid=wnid)
            yield from self._partitions_of(tar)

    def read_images(self, partition: Partition) -> Iterator[tuple[SourceImage, bytes]]:
        """The images in a range of a tar, in order."""
        path, start, size = partition.path, partition.offset, partition.size
        pieces = self.folder.stream(path, start, size)
        for member, data in iter_members(pieces, start, start + size, f"{self.where}/{path}", partition.is_last):
            if self._is_skipped(member):
                continue
            key, wnid = self._key_and_wnid(partition, member)
            image = SourceImage(key, partition.split, wnid, path, member.offset, member.size, suffix(member.name))
            if patch := self._patches.get((partition.split, key)):
                image = replace(image, path=str(self.year.patches), offset=patch.offset, size=patch.size)
                yield image, self.read(image.path, image.offset, image.size)
            else:
                yield image, self._gunzipped(data)

    def read(self, path: str, offset: int, size: int) -> bytes:
        """A range of an archive, without its gzip."""
        return self._gunzipped(self.folder.read(path, offset, size))

    def __reduce__(self) -> tuple[type["ArchivesSource"], tuple[Folder, str, Year, tuple[ArchiveConfig, ...]]]:
        return ArchivesSource, (self.folder, self.where, self.year, self.archives)  # without what it has read

    def _key_and_wnid(self, partition: Partition, member: Member) -> tuple[str, str]:
        """An image's key and wnid. An image in another synset's tar, or with a number that the devkit lacks, has no wnid."""
        if partition.split == "train":
            key = self._match(_TRAIN_IMAGE, member, partition.path, "n00000000_0.JPEG")[1]
            return key, partition.wnid if key.startswith(f"{partition.wnid}_") else ""
        match = self._match(_VAL_IMAGE, member, partition.path, f"{self.year.name}_val_00000000.JPEG")
        known, number = self._devkit.val_wnids, int(match[2])
        return match[1], known[number - 1] if 1 <= number <= len(known) else ""

    def _match(self, pattern: re.Pattern[str], member: Member, archive: str, allowed: str) -> re.Match[str]:
        name = member.name.rpartition("/")[2] if self.year.patches else member.name
        if (match := pattern.fullmatch(name)) is None:
            where = f"{self.where}/{archive}: member {member.name!r} at byte {member.offset - BLOCK:,}"
            raise DataError(f"{where}; allowed: {allowed}")
        return match

    def _is_skipped(self, member: Member) -> bool:
        return bool(self.year.patches) and member.name.endswith("/")

    def _gunzipped(self, data: bytes) -> bytes:
        """An image of 2010 without its gzip. What does not unpack stays as it is, and `validate` finds the fault."""
        if not self.year.patches or not data.startswith(_GZIP):
            return data
        unpacking = zlib.decompressobj(31)
        try:
            image = unpacking.decompress(data, LARGEST)
        except zlib.error:
            return data
        return image if unpacking.eof else data

    def _partitions_of(self, tar: Partition) -> Iterator[Partition]:
        """Ranges of a tar of about the same size, split where members begin."""
        image = _TRAIN_IMAGE if tar.split == "train" else _VAL_IMAGE

        def is_image(name: str) -> object:
            return image.fullmatch(name.rpartition("/")[2])

        end = tar.offset + tar.size
        starts = split_points(
            lambda at, size: self.folder.read(tar.path, at, size), tar.offset, end, _PARTITION_BYTES, is_image
        )
        for start, stop in pairwise([*starts, end]):
            yield replace(tar, offset=start, size=stop - start, is_last=stop == end)

    def _synset_tars(self) -> Iterator[Member]:
        at, end = 0, self._files[self.year.train].size
        while at < end:
            where = f"{self.where}/{self.year.train}"
            member = parse_header(self.folder.read(self.year.train, at, BLOCK), at, end, where)
            if member is None:
                return
            if not self._is_skipped(member):
                yield member
            at = member.end
        raise DataError(f"{self.where}/{self.year.train}: no end mark at byte {at:,}; the archive is cut, fetch it again")

    @cached_property
    def _files(self) -> dict[str, SourceFile]:
        found = {file.path: file for file in self.folder.list()}
        wanted = self.year.archives
        if missing := [name for name in wanted if name not in found]:
            raise DataError(f"{self.where}: has no {', '.join(missing)}; imagenet needs {', '.join(wanted)}")
        return {name: found[name] for name in wanted}

    @cached_property
    def _devkit(self) -> Devkit:
        return _devkit_at(self.folder, self._files[self.year.devkit], self.year, self.where)

    @cached_property
    def _patches(self) -> dict[tuple[str | None, str], Member]:
        return _patches_at(self.folder, self._files[self.year.patches], self.where) if self.year.patches else {}


@cache
def _devkit_at(folder: Folder, file: SourceFile, year: Year, where: str) -> Devkit:
    """Cached in the process: every unpickled copy of a source asks again."""
    return read_devkit(folder.read(file.path, 0, file.size), year, f"{where}/{file.path}")


@cache
def _patches_at(folder: Folder, file: SourceFile, where: str) -> dict[tuple[str | None, str], Member]:
    """The members that replace another image, by that image's split and key. Cached, as above."""
    pieces = folder.stream(file.path, 0, file.size)
    members = (member for member, _ in iter_members(pieces, 0, file.size, f"{where}/{file.path}"))
    found = ((_PATCH.fullmatch(member.name), member) for member in members)
    return {(match[1], match[2].removesuffix(".JPEG")): member for match, member in found if match}


def _check_digest(folder: Folder, where: str, files: dict[str, SourceFile], archive: ArchiveConfig) -> None:
    """Raises DataError when an archive's MD5 is not the published one. MD5s are cached by path, size and stamp."""
    if archive.file not in files:
        return
    file = files[archive.file]
    cache_key = f"{where}/{file.path} {file.size} {file.stamp}"
    try:
        digests = json.loads(_DIGESTS.read_text())
    except (OSError, ValueError):
        digests = {}
    if cache_key not in digests:
        digest = hashlib.md5(usedforsecurity=False)
        pieces = folder.stream(file.path, 0, file.size)
        for piece in console.track(pieces, -(-file.size >> 20), f"md5 of {file.path}", unit="MiB"):
            digest.update(piece)
        digests[cache_key] = digest.hexdigest()
        atomic_write_bytes(_DIGESTS, json.dumps(digests, indent=1, sort_keys=True).encode())
    if digests[cache_key] != archive.md5:
        raise DataError(
            f"{where}/{file.path}: MD5 is {digests[cache_key]}, its publisher's is {archive.md5}; fetch it again, "
            "or change source.archives in params.yaml if it is another one on purpose"
        )


def open_imagenet(archives: tuple[ArchiveConfig, ...]) -> Source:
    """The archives, or the unpacked folders, at ALEXNET_SOURCE."""
    place = environment.source()
    if not place:
        raise DataError("ALEXNET_SOURCE: not set; `imagenet` reads the archives in the folder or s3://BUCKET/PREFIX it names")
    published = [name for year in YEARS for name in year.archives]
    if unknown := [archive.file for archive in archives if archive.file not in published]:
        raise DataError(f"source.archives: {unknown[0]!r} is no archive of imagenet; allowed: {', '.join(published)}")
    folder, where = folder_at(place), place.rstrip("/")
    top = {file.path: file for file in folder.list()}
    images = [path for path in top if suffix(path) in SUFFIXES]
    unpacked = [split for split in ("train", "val") if any(path.startswith(f"{split}/") for path in images)]
    for year in YEARS:
        there = [name for name in (year.train, year.val) if name in top]
        if len(there) == 1 and unpacked:
            raise DataError(
                f"{where}: has {there[0]} beside an unpacked {unpacked[0]}/; "
                f"needs {year.train} and {year.val}, or train/ and val/: unpack both or neither"
            )
        if there:
            return ArchivesSource(folder, where, year, archives)  # which says what is missing
    if len(unpacked) < 2:
        raise DataError(
            f"{where}: has neither archives nor unpacked images of both splits; imagenet needs {', '.join(YEARS[0].archives)}, "
            "or train/WNID/IMAGE and val/WNID/IMAGE"
        )
    return _unpacked(folder, where, top, archives)


def _unpacked(folder: Folder, where: str, top: dict[str, SourceFile], archives: tuple[ArchiveConfig, ...]) -> FolderSource:
    """The unpacked folders, with the labels of a devkit if there is one."""
    for year in YEARS:
        if year.devkit in top:
            for archive in archives:
                _check_digest(folder, where, top, archive)
            devkit = _devkit_at(folder, top[year.devkit], year, where)
            labels = {f"{year.name}_val_{number:08}.JPEG": wnid for number, wnid in enumerate(devkit.val_wnids, 1)}
            return FolderSource(folder, where, name_is_key=True, labels=Labels(devkit.names, labels))
    return FolderSource(folder, where, name_is_key=True)
