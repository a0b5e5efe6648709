"""The source `imagenet`: the archives of ILSVRC as distributed, on disk or in a bucket, read without unpacking; or unpacked.

    ILSVRC2012_img_train.tar        1,000 tars, n01440764.tar holding n01440764_10026.JPEG and so on
    ILSVRC2012_img_val.tar          ILSVRC2012_val_00000001.JPEG and so on
    ILSVRC2012_devkit_t12.tar.gz    the synsets and the validation images' labels

ILSVRC2010 has other names, and a fourth archive, patch_images.tar, of
images that take the place of blank ones. The devkit may be gunzipped or
unpacked. Unpacked: train/WNID/IMAGE and val/WNID/IMAGE; or val/IMAGE,
with the devkit or Kaggle's LOC_val_solution.csv; also in Kaggle's
ILSVRC/Data/CLS-LOC/.
"""

import hashlib
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import pairwise
from tarfile import TarInfo

from alexnet.errors import DataError
from alexnet.files.atomic import atomic_write_bytes
from alexnet.images.inspect import suffix
from alexnet.shards.manifest import Split
from alexnet.shards.tar import iter_headers
from pipelines.runtime import console, environment
from pipelines.sources.archives.devkit import GZIP, YEARS, Devkit, Year, find_devkit, load_devkit
from pipelines.sources.archives.tar_stream import LARGEST, ReadAhead, split_points
from pipelines.sources.base import ArchiveConfig, Partition, SourceConfig, SourceFile, SourceImage
from pipelines.sources.folder import FolderSource
from pipelines.sources.known_names import split_names
from pipelines.sources.layout import LeftOut, take, tree
from pipelines.sources.levels import places_of_splits
from pipelines.sources.places import Folder, folder_of

_TRAIN_TAR = re.compile(r"(n\d{8})\.tar")
_IMAGES = {"train": re.compile(r"(n\d{8}_\d+)\.JPEG"), "val": re.compile(r"(ILSVRC20\d\d_val_\d{8})\.JPEG")}
_PATCH = re.compile(r"(?:.*/)?(train|val)/([^/]+)\.JPEG")
_KAGGLE = ("ILSVRC/Data/CLS-LOC/", "Data/CLS-LOC/")
_DIGESTS = environment.SHARED / "sources" / "digests.json"  # of archives, by path, size and stamp: computed once
_PARTITION_BYTES = 128 << 20  # of an archive: about what a synset's tar has


@dataclass(frozen=True)
class ArchivesSource:
    """One year's archives.

    where: the place's name in errors. listed: the archives of images by name. devkit: its archive, or its two files. archives:
    those whose MD5 is checked. out: what else lies there.
    """

    folder: Folder
    where: str
    year: Year
    listed: dict[str, SourceFile]
    devkit: tuple[SourceFile, ...]
    archives: tuple[ArchiveConfig, ...]
    out: LeftOut = field(default_factory=LeftOut)

    def files(self) -> list[SourceFile]:
        """The archives. Raises DataError when an MD5 is not the published one, or the devkit is damaged."""
        files = {file.path: file for file in (*self.listed.values(), *self.devkit)}
        _check_digests(self.folder, self.where, files, self.archives)
        assert self._devkit  # raises when it is damaged
        return sorted(files.values(), key=lambda file: file.path)

    def layout(self) -> str:
        """What was found, in one line."""
        kit = self._devkit
        counts = f"{kit.train_images:,} images to train on and {len(kit.val_wnids):,} for validation"
        return f"the archives of {self.year.name}; by its development kit, {counts}, of {len(kit.names):,} classes"

    def left_out(self) -> LeftOut:
        """What else lies there."""
        return self.out

    def class_names(self) -> dict[str, str]:
        """The devkit's."""
        return self._devkit.names

    def num_images(self) -> int:
        """As many as the devkit says."""
        return self._devkit.train_images + len(self._devkit.val_wnids)

    def partitions(self) -> Iterator[Partition]:
        """Ranges of the validation archive, then of every synset's tar, most of which are one partition."""
        yield from self._split(Partition(path=self.year.val, size=self.listed[self.year.val].size, split="val"))
        path = self.year.train
        for member in iter_headers(partial(self.folder.read, path), 0, self.listed[path].size, f"{self.where}/{path}"):
            if not self._is_skipped(member):
                wnid = self._match(_TRAIN_TAR, member, path, "n00000000.tar")
                yield from self._split(Partition((), path, member.offset_data, member.size, "train", wnid))

    def read_images(self, partition: Partition) -> Iterator[tuple[SourceImage, bytes]]:
        """The images in a range of a tar, in order. One in another synset's tar, or that the devkit lacks, has no wnid."""
        path, split, end = partition.path, partition.split or "train", partition.offset + partition.size
        allowed = "n00000000_0.JPEG" if split == "train" else f"{self.year.name}_val_00000000.JPEG"
        read = ReadAhead(partial(self.folder.read, path), end)
        for member in iter_headers(read, partition.offset, end, f"{self.where}/{path}", partition.is_last):
            if self._is_skipped(member):
                continue
            key = self._match(_IMAGES[split], member, path, allowed)
            wnid = self._devkit.wnid(split, partition.wnid, key)
            image = SourceImage(key, split, wnid, path, member.offset_data, member.size, suffix(member.name))
            patch = self._patches.get((split, key))
            if patch:
                image = replace(image, path=str(self.year.patches), offset=patch.offset_data, size=patch.size)
            if image.size > LARGEST:
                at = f"{image.path}: member {member.name!r} at byte {(patch or member).offset:,}"
                raise DataError(f"{self.where}/{at} has {image.size:,} bytes, more than any image")
            source = partial(self.folder.read, image.path) if patch else read
            yield image, self._gunzipped(source(image.offset, image.size))

    def read(self, path: str, offset: int, size: int) -> bytes:
        """A range of an archive, without its gzip."""
        return self._gunzipped(self.folder.read(path, offset, size))

    def _match(self, pattern: re.Pattern[str], member: TarInfo, archive: str, allowed: str) -> str:
        name = member.name.rpartition("/")[2] if self.year.patches else member.name
        where = f"{self.where}/{archive}: member {member.name!r} at byte {member.offset:,}"
        if not member.isreg():
            raise DataError(f"{where} is no regular file; ImageNet's archives hold no others")
        if (match := pattern.fullmatch(name)) is None:
            raise DataError(f"{where}; allowed: {allowed}")
        return match[1]

    def _is_skipped(self, member: TarInfo) -> bool:
        return bool(self.year.patches) and member.isdir()

    def _gunzipped(self, data: bytes) -> bytes:
        """An image of 2010 without its gzip. What does not unpack stays as it is, and `validate` finds the fault."""
        if not self.year.patches or not data.startswith(b"\x1f\x8b"):
            return data
        unpacking = zlib.decompressobj(31)
        try:
            image = unpacking.decompress(data, LARGEST)
        except zlib.error:
            return data
        return image if unpacking.eof else data

    def _split(self, tar: Partition) -> Iterator[Partition]:
        """Ranges of a tar of about the same size, split where members begin."""
        image, end = _IMAGES[tar.split or "train"], tar.offset + tar.size
        starts = split_points(partial(self.folder.read, tar.path), tar.offset, end, _PARTITION_BYTES, image.fullmatch)
        for start, stop in pairwise([*starts, end]):
            yield replace(tar, offset=start, size=stop - start, is_last=stop == end)

    @property
    def _devkit(self) -> Devkit:
        return _devkit_at(self.folder, self.devkit, self.year, self.where)

    @property
    def _patches(self) -> dict[tuple[str, str], TarInfo]:
        return _patches_at(self.folder, self.listed[self.year.patches], self.where) if self.year.patches else {}


@cache
def _devkit_at(folder: Folder, found: tuple[SourceFile, ...], year: Year, where: str) -> Devkit:
    """Cached in the process: every unpickled copy of a source asks again."""
    return load_devkit(folder, found, year, where)


@cache
def _patches_at(folder: Folder, file: SourceFile, where: str) -> dict[tuple[str, str], TarInfo]:
    """The members that replace another image, by that image's split and key. Cached, as above."""
    members = iter_headers(partial(folder.read, file.path), 0, file.size, f"{where}/{file.path}")
    return {(match[1], match[2]): member for member in members if member.isreg() and (match := _PATCH.fullmatch(member.name))}


def _check_digests(folder: Folder, where: str, files: dict[str, SourceFile], archives: tuple[ArchiveConfig, ...]) -> None:
    """Raises DataError when an archive's MD5 is not the published one. MD5s are cached by path, size and stamp."""
    for archive in archives:
        if (file := files.get(archive.file)) is None:
            continue
        if file.path.endswith(".gz") and file.size and folder.read(file.path, 0, len(GZIP)) != GZIP:
            continue  # a browser has gunzipped it: its publisher's MD5 is not of these bytes, and what it holds is checked
        cache_key = f"{where}/{file.path} {file.size} {file.stamp}"
        try:
            digests = json.loads(_DIGESTS.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            digests = {}
        if cache_key not in digests:
            digest = hashlib.md5(usedforsecurity=False)
            starts, mib = range(0, file.size, 8 << 20), file.size >> 20
            for start in console.track(starts, mib, f"md5 of {file.path}", "MiB", lambda start: 8):
                digest.update(folder.read(file.path, start, min(8 << 20, file.size - start)))
            digests[cache_key] = digest.hexdigest()
            atomic_write_bytes(_DIGESTS, json.dumps(digests, indent=1, sort_keys=True).encode())
        if digests[cache_key] != archive.md5:
            raise DataError(
                f"{where}/{file.path}: MD5 is {digests[cache_key]}, its publisher's is {archive.md5}; fetch it again, "
                "or change source.archives in params.yaml if it is another one on purpose"
            )


def open_imagenet(config: SourceConfig) -> ArchivesSource | FolderSource:
    """The archives, or the unpacked folders, at ALEXNET_SOURCE. Raises DataError that says what is missing."""
    folder, place = folder_of(config)
    where = place.rstrip("/")
    published = [name for year in YEARS for name in year.archives]
    if unknown := [archive.file for archive in config.archives if archive.file not in published]:
        raise DataError(f"source.archives: {unknown[0]!r} is no archive of imagenet; allowed: {', '.join(published)}")
    out = LeftOut()
    files = take(folder.list(), config, out)
    listed = {file.path: file for file in files}
    root = tree(files)
    unpacked = [split for split in ("train", "val") if (node := root.children.get(split)) and node.total]
    for year in YEARS:
        images = [name for name in (year.train, year.val, year.patches) if name]
        tars = [name for name in (year.train, year.val) if name in listed]
        if len(tars) == 1 and unpacked:
            raise DataError(
                f"{where}: has {tars[0]} beside an unpacked {unpacked[0]}/; "
                f"needs {year.train} and {year.val}, or train/ and val/: unpack both or neither"
            )
        devkit = find_devkit(files, year)
        missing = [name for name in images if name not in listed] + ([] if devkit else [year.devkit])
        if tars and missing:
            raise DataError(
                f"{where}: has no {', '.join(missing)}{_instead(missing, files)}; imagenet needs {', '.join(year.archives)}"
            )
        if tars:
            used = {name: listed[name] for name in images}
            for file in files:
                if file.path not in used and file not in devkit and out.is_image(file):
                    out.loose.append(file.path)
            return ArchivesSource(folder, where, year, used, devkit, config.archives, out)
    if not config.given_splits:
        config = replace(config, splits=_unpacked_splits(files, where))
    found, year = next(((found, year) for year in YEARS if (found := find_devkit(files, year))), ((), YEARS[0]))
    _check_digests(folder, where, listed, config.archives)
    return FolderSource(folder, where, {}, True, _devkit_at(folder, found, year, where) if found else None, config)


def _unpacked_splits(files: list[SourceFile], where: str) -> dict[Split, str]:
    """The folders of unpacked images: train and val of the place itself, or Kaggle's. Raises DataError when there are none."""
    root = tree(files)
    for base in ("", *_KAGGLE):
        node = root.at(base.rstrip("/"))
        names = split_names(node.with_images()) if node else {}
        by_split = {split: f"{base}{name}" for name, split in names.items()}
        if "train" in by_split and "val" in by_split:
            return {"train": by_split["train"], "val": by_split["val"]}
    needs = f"imagenet needs {', '.join(YEARS[0].archives)}, or train/WNID/IMAGE and val/WNID/IMAGE"
    above = {
        file.path.rpartition("/")[0]
        for file in files
        for year in YEARS
        if file.path.endswith(("/" + year.train, "/" + year.val))
    }
    if below := sorted({*places_of_splits(root), *above}):
        raise DataError(f"{where}: one level too high, or more; set ALEXNET_SOURCE to {where}/{below[0]}")
    raise DataError(
        f"{where}: has neither archives nor unpacked images of both splits{_instead(YEARS[0].archives, files)}; {needs}"
    )


def _instead(missing: Sequence[str], files: list[SourceFile]) -> str:
    """Files that may be one of the missing ones under another name, or further down."""
    for name in missing:
        stem, dot, end = name.partition(".")
        for file in files:
            own = file.path.rpartition("/")[2]
            if own == name:
                return f"; it lies at {file.path}: move it up"
            if own.startswith(stem) and own != name and dot + end in own:
                return f"; is it {own!r}? rename it to {name}"
    if tars := [file.path for file in files if _TRAIN_TAR.fullmatch(file.path.rpartition("/")[2])]:
        return f"; the {len(tars):,} tars of synsets ({tars[0]}) are not read: keep the archive they came in, or unpack all"
    return ""
