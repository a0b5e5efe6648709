"""Archives in the format of ILSVRC2012's or ILSVRC2010's distribution, of drawn images, with faults on request.

Equal recipes make equal bytes.
"""

import gzip
import io
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from alexnet.errors import ParamsError
from alexnet.files.atomic import atomic_write_bytes
from alexnet.images.inspect import FAULTS, Fault
from pipelines.cli.pictures import (
    animation,
    damaged_jpeg,
    draw_image,
    encode_image,
    huge_png,
    jpeg,
    jpeg_with_exif,
    rotated_jpeg,
    swapped_profile,
)
from pipelines.sources.archives.devkit import ILSVRC2012, Year

FAULTY_IMAGES: dict[Fault, Callable[[int], bytes]] = {  # the faults of one image alone, drawn from a seed
    "empty": lambda seed: b"",
    "not_an_image": lambda seed: f"<html>{seed}</html>".encode(),
    "truncated": lambda seed: jpeg(seed)[:-200],
    "bomb": lambda seed: huge_png(30_000 + seed % 1000),
    "tiny": lambda seed: jpeg(seed, 5, 5),
    "extreme_aspect": lambda seed: jpeg(seed, 900, 10),
    "damaged": damaged_jpeg,
    "wrong_format": lambda seed: encode_image(draw_image(seed), "PNG"),
    "cmyk": lambda seed: encode_image(draw_image(seed).convert("CMYK")),
    "deep": lambda seed: encode_image(Image.fromarray(np.full((40, 40), 300 + seed, np.uint16)), "PNG"),
    "alpha": lambda seed: encode_image(draw_image(seed).convert("RGBA"), "PNG"),
    "palette": lambda seed: encode_image(draw_image(seed).convert("P"), "PNG"),
    "grey": lambda seed: encode_image(draw_image(seed).convert("L")),
    "exif_damaged": lambda seed: jpeg_with_exif(seed, b"II*\0\xff\xff\xff\x0f"),
    "exif_rotated": rotated_jpeg,
    "frames": lambda seed: animation(seed, "MPO"),
    "profile": lambda seed: encode_image(draw_image(seed), icc_profile=swapped_profile()),
}
_PNG_ONLY: tuple[Fault, ...] = ("deep", "alpha", "palette")  # a JPEG cannot have these
_COPIED_IMAGE: dict[Fault, int] = {"conflicting": 0, "duplicate": 1, "leaked": 2}  # which of a synset's images is copied
Images = list[tuple[str, bytes]]  # keys and files


@dataclass(frozen=True)
class Recipe:
    """What to make.

    images, val_images: of every synset. plant: faults, each in one image more or in one more copy of an image. size: of the
    images, width and height in pixels. Raises ParamsError when there are too few images for the faults.
    """

    synsets: int = 10
    images: int = 60
    val_images: int = 10
    plant: tuple[Fault, ...] = ()
    size: tuple[int, int] = (256, 192)
    year: Year = ILSVRC2012

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.plant) - set(FAULTS)):
            raise ParamsError(f"plant: no such fault {unknown[0]!r}; there are {', '.join(FAULTS)}")
        least = 1 + max((_COPIED_IMAGE.get(fault, 0) for fault in self.plant), default=0)
        if self.synsets < 2 or self.images < least or self.val_images < 1:
            raise ParamsError(
                f"needs 2 synsets, {least} images and 1 validation image each; "
                f"got {self.synsets}, {self.images}, {self.val_images}"
            )
        if (leaked := self.plant.count("leaked")) > (images := self.synsets * self.val_images):
            raise ParamsError(f"plant: leaked stands {leaked} times, for {images} validation images")


@dataclass
class Contents:
    """What the archives hold, and the faults that should be found, by key.

    wnids, ids: by label. train: by wnid. val: in the order of the archive; image i has label i % len(wnids).
    """

    wnids: list[str]
    ids: list[int]
    train: dict[str, Images]
    val: Images
    faults: dict[str, set[Fault]] = field(default_factory=dict)


def make(folder: Path, recipe: Recipe) -> Contents:
    """Writes the archives of the recipe's year to a folder. Raises ParamsError where others of these names are there."""
    wnids = [f"n{1_440_764 + 37 * label:08}" for label in range(recipe.synsets)]
    # The real kit's ids are not in the order of the wnids either: code that takes one for the other must fail here too.
    ids = [int(each) + 1 for each in np.random.default_rng(2012).permutation(recipe.synsets)]
    train = {
        wnid: [(f"{wnid}_{number}", _draw(label, number, recipe.size)) for number in range(recipe.images)]
        for label, wnid in enumerate(wnids)
    }
    val = [
        (f"{recipe.year.name}_val_{number + 1:08}", _draw(number % recipe.synsets, 100_000 + number, recipe.size))
        for number in range(recipe.synsets * recipe.val_images)
    ]
    contents = Contents(wnids, ids, train, val)
    for number, fault in enumerate(recipe.plant):
        _plant(contents, fault, number)
    archives = _archives(contents, recipe.year)
    for name, data in archives.items():
        path = folder / name
        if path.exists() and (path.stat().st_size != len(data) or path.read_bytes() != data):
            raise ParamsError(f"{path}: exists, and is another one; name a folder without it, or remove it")
    for name, data in archives.items():
        atomic_write_bytes(folder / name, data)
    return contents


def _draw(label: int, number: int, size: tuple[int, int]) -> bytes:
    """An image with its class's color and number of stripes, so that there is something to learn."""
    base = np.asarray(draw_image(label * 1_000_003 + number, *size), float)
    color = np.random.default_rng([0, label]).integers(0, 256, 3)
    stripes = 50 * np.sin(np.linspace(0, 2 * np.pi * (2 + label % 9), size[1]))[:, None, None]
    return encode_image(Image.fromarray(np.clip((base + 2 * color) / 3 + stripes, 0, 255).astype(np.uint8)))


def _plant(contents: Contents, fault: Fault, number: int) -> None:
    wnids, train, val, faults = contents.wnids, contents.train, contents.val, contents.faults
    label = number % len(wnids)
    wnid, other = wnids[label], wnids[(label + 1) % len(wnids)]
    key, other_key = f"{wnid}_{900_000 + number}", f"{other}_{900_000 + number}"
    copied_key, copied = train[wnid][_COPIED_IMAGE.get(fault, 0)]
    if fault in FAULTY_IMAGES:
        train[wnid].append((key, FAULTY_IMAGES[fault](5_000 + number)))
        faults[key] = {fault, "wrong_format"} if fault in _PNG_ONLY else {fault}
    elif fault == "unknown_class":
        train[wnid].append((other_key, _draw(7, 7_000 + number, (64, 48))))
        faults[other_key] = {fault}
    elif fault == "duplicate":
        train[wnid].append((key, copied))
        faults[key] = {fault}
    elif fault == "conflicting":
        train[other].append((other_key, copied))
        faults[other_key], faults[copied_key] = {fault}, {fault}
        faults[max(other_key, copied_key)].add("duplicate")  # they are also the same bytes within a split
    else:  # leaked
        place = next(i for i in range(label, len(val), len(wnids)) if val[i][0] not in faults)
        val[place] = (val[place][0], copied)
        faults[val[place][0]], faults[copied_key] = {fault}, {fault}


def _archives(contents: Contents, year: Year) -> dict[str, bytes]:
    """All archives by name.

    Those of a year with patches are packed as loosely as in 2010: in every tar there is a folder, the first image is gzipped,
    and the last is blank and in the archive of patches.
    """
    groups = [("train", wnid, contents.train[wnid]) for wnid in reversed(contents.wnids)] + [("val", "val", contents.val)]
    tars = []
    for _, folder, images in groups:
        files = [(f"{key}.JPEG", data) for key, data in images]
        if year.patches:
            files[-1] = (files[-1][0], encode_image(Image.new("L", (64, 48), 255)))
            files[0] = (files[0][0], gzip.compress(files[0][1], mtime=0))
            files = [(f"{folder}/", b""), *((f"{folder}/{name}", data) for name, data in files)]
        tars.append(tar_of(files))
    truth = "".join(f"{contents.ids[number % len(contents.ids)]}\n" for number in range(len(contents.val)))
    kit = [
        (year.meta, meta_mat(contents, year)),
        (year.truth, truth.encode()),
        (f"{year.folder}/readme.txt", b"made for tests"),
    ]
    archives = {
        year.train: tar_of((f"{wnid}.tar", tar) for wnid, tar in zip(reversed(contents.wnids), tars[:-1], strict=True)),
        year.val: tars[-1],
        year.devkit: gzip.compress(tar_of(kit), mtime=0),
    }
    if year.patches:
        patches = [(f"patch_images/{split}/{images[-1][0]}.JPEG", images[-1][1]) for split, _, images in groups]
        archives[year.patches] = tar_of([("patch_images/", b""), *patches])
    return archives


def meta_mat(contents: Contents, year: Year) -> bytes:
    """The devkit's MATLAB file: the classes, and their parent, which is a synset but no class."""
    from scipy.io import savemat

    names = (f"{year.name}_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height", "num_train_images")
    count = len(contents.wnids)
    rows = np.empty((count + 1, 1), [(name, object) for name in names])
    for label, (wnid, number) in enumerate(zip(contents.wnids, contents.ids, strict=True)):
        images = float(len(contents.train[wnid]))
        words = f"thing {label}, object {label}"
        rows[number - 1, 0] = (float(number), wnid, words, "made", 0.0, np.zeros((1, 0)), 0.0, images)
    rows[-1, 0] = (count + 1.0, "n00000001", "entity", "all", float(count), np.array([contents.ids], float), 1.0, 0.0)
    out = io.BytesIO()
    savemat(out, {"synsets": rows})
    return b"MATLAB 5.0 MAT-file, made for tests".ljust(116) + out.getvalue()[116:]  # savemat's own first line has the time


def tar_of(files: Iterable[tuple[str, bytes]], edit: Callable[[tarfile.TarInfo], None] = lambda info: None) -> bytes:
    """A GNU tar without times. A name that ends in a slash is a folder's; `edit` may change every header."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            edit(info)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()
