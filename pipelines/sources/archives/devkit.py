"""ImageNet's development kit: the classes with their names, and the labels of the validation images."""

import io
import re
import tarfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from alexnet.errors import DataError
from alexnet.shards.manifest import Split
from pipelines.sources.archives.synsets import read_synsets
from pipelines.sources.base import SourceFile

if TYPE_CHECKING:
    from pipelines.sources.places import Folder

GZIP = b"\x1f\x8b"
_MAX_BYTES = 64 << 20  # of a file in it; the real ones have less than 1 MB


@dataclass(frozen=True)
class Year:
    """File names in one year's distribution.

    folder: in the devkit's archive. patches: the archive of images that replace blank ones. The year that has it, 2010, is
    packed differently: its archives have folders, names have folders before them, and some images are gzipped.
    """

    name: str
    train: str
    val: str
    devkit: str
    folder: str
    patches: str | None = None

    @property
    def archives(self) -> tuple[str, ...]:
        """The names of all archives."""
        return (self.train, self.val, self.devkit, *([self.patches] if self.patches else []))

    @property
    def truth(self) -> str:
        """The devkit's file with the ids of the validation images' synsets."""
        return f"{self.folder}/data/{self.name}_validation_ground_truth.txt"

    @property
    def meta(self) -> str:
        """The devkit's MATLAB file of synsets."""
        return f"{self.folder}/data/meta.mat"


ILSVRC2012 = Year(
    "ILSVRC2012",
    train="ILSVRC2012_img_train.tar",
    val="ILSVRC2012_img_val.tar",
    devkit="ILSVRC2012_devkit_t12.tar.gz",
    folder="ILSVRC2012_devkit_t12",
)
ILSVRC2010 = Year(
    "ILSVRC2010",
    train="ILSVRC2010_images_train.tar",
    val="ILSVRC2010_images_val.tar",
    devkit="ILSVRC2010_devkit-1.0.tar.gz",
    folder="devkit-1.0",
    patches="patch_images.tar",
)
YEARS = (ILSVRC2012, ILSVRC2010)


@dataclass(frozen=True)
class Devkit:
    """The classes and labels. names: by wnid. val_wnids: by the validation image's key. train_images: how many there are."""

    names: dict[str, str]
    val_wnids: dict[str, str]
    train_images: int

    def wnid(self, split: Split | None, folder: str, key: str) -> str:
        """The class of an image in a class's folder, or in another or none ("").

        Empty where folder, key and devkit contradict each other.
        """
        if split == "val":
            wnid = self.val_wnids.get(key, "")
            return wnid if folder not in self.names or folder == wnid else ""
        folder = folder or key.partition("_")[0]
        return folder if folder in self.names and key.startswith(f"{folder}_") else ""


def find_devkit(files: Iterable[SourceFile], year: Year) -> tuple[SourceFile, ...]:
    """The devkit among a source's files: its archive, also gunzipped or renamed by a browser; or its two files, unpacked.

    Empty if there is none.
    """
    stem = re.escape(year.devkit.removesuffix(".tar.gz"))
    by_name = {file.path.rpartition("/")[2]: file for file in sorted(files, key=lambda file: -file.path.count("/"))}
    archive = re.compile(rf"{stem}( ?\(\d+\)|-\d+| copy)?(\.tar|\.tgz|\.tar\.gz)( ?\(\d+\))?")
    if name := next((name for name in (year.devkit, *sorted(by_name)) if name in by_name and archive.fullmatch(name)), None):
        return (by_name[name],)
    both = [by_name.get(path.rpartition("/")[2]) for path in (year.meta, year.truth)]
    return tuple(file for file in both if file) if all(both) else ()


def load_devkit(folder: "Folder", found: tuple[SourceFile, ...], year: Year, where: str) -> Devkit:
    """The devkit that `find_devkit` has found."""
    parts = [folder.read(file.path, 0, file.size) for file in found]
    if len(parts) == 1:
        return read_devkit(parts[0], year, f"{where}/{found[0].path}")
    return parse_devkit(dict(zip((year.meta, year.truth), parts, strict=True)), year, f"{where}/{found[0].path}")


def read_devkit(data: bytes, year: Year, where: str) -> Devkit:
    """Reads the devkit in a year's archive, gzipped or not.

    Raises:
        DataError: The archive is damaged or another year's, or its ids do not match its synsets.
    """
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz" if data.startswith(GZIP) else "r:") as tar:
            for member in tar:
                name = member.name.removeprefix("./")
                if name in (year.meta, year.truth) and member.size <= _MAX_BYTES and (body := tar.extractfile(member)):
                    files[name] = body.read()
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DataError(f"{where}: damaged: {error}; fetch it again") from None
    if missing := sorted({year.meta, year.truth} - files.keys()):
        raise DataError(f"{where}: has no {', '.join(missing)}; is it another year's?")
    return parse_devkit(files, year, where)


def parse_devkit(files: dict[str, bytes], year: Year, where: str) -> Devkit:
    """The devkit in its two files, by their names in the archive.

    Its ids are not labels: a label here is the index of a wnid among all wnids, sorted.
    """
    try:
        synsets = {each.number: each for each in read_synsets(files[year.meta], year.name)}
    except ValueError as error:
        raise DataError(f"{where}: {year.meta} holds no list of synsets: {error}") from None
    try:
        ids = [int(line) for line in files[year.truth].split()]
    except ValueError as error:
        raise DataError(f"{where}: {year.truth}: {error}; it should hold one id a line") from None
    if unknown := sorted(set(ids) - synsets.keys()):
        raise DataError(
            f"{where}: {year.truth} has id {unknown[0]}, which is no synset's; the kit is not the one of {year.name}"
        )
    val_wnids = {f"{year.name}_val_{number:08}": synsets[each].wnid for number, each in enumerate(ids, 1)}
    names = {each.wnid: each.words for each in synsets.values()}
    return Devkit(names, val_wnids, sum(each.train_images for each in synsets.values()))
