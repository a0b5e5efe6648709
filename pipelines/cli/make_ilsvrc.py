"""Makes archives in the format of ILSVRC2012's or ILSVRC2010's distribution, drawn deterministically, with faults on request.

python -m pipelines.cli.make_ilsvrc .local/ilsvrc                        # 10 synsets to learn: `alexnet use imagenet-demo`
python -m pipelines.cli.make_ilsvrc FOLDER --plant cmyk truncated leaked
"""

import argparse
import gzip
import io
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.cli import pictures
from pipelines.sources.devkit import ILSVRC2012, YEARS, Year

ALONE: dict[str, Callable[[int], bytes]] = {
    "empty": lambda seed: b"",
    "not_an_image": lambda seed: f"<html>{seed}</html>".encode(),
    "truncated": lambda seed: pictures.jpeg(seed)[:-200],
    "bomb": lambda seed: pictures.huge_png(30_000 + seed % 1000),
    "tiny": lambda seed: pictures.jpeg(seed, 5, 5),
    "extreme_aspect": lambda seed: pictures.jpeg(seed, 900, 10),
    "damaged": pictures.dirty,
    "wrong_format": lambda seed: pictures.file_of(pictures.picture(seed), "PNG"),
    "cmyk": lambda seed: pictures.file_of(pictures.picture(seed).convert("CMYK")),
    "deep": lambda seed: pictures.file_of(Image.fromarray(np.full((40, 40), 300 + seed, np.uint16)), "PNG"),
    "alpha": lambda seed: pictures.file_of(pictures.picture(seed).convert("RGBA"), "PNG"),
    "palette": lambda seed: pictures.file_of(pictures.picture(seed).convert("P"), "PNG"),
    "grey": lambda seed: pictures.file_of(pictures.picture(seed).convert("L")),
    "exif_damaged": lambda seed: pictures.with_exif(seed, b"II*\0\xff\xff\xff\x0f"),
    "exif_rotated": pictures.rotated,
}
TOGETHER = ("unknown_class", "conflicting", "leaked", "duplicate")
PLANTABLE = (*ALONE, *TOGETHER)
_LEAST_IMAGES = {"duplicate": 2, "leaked": 3}  # of a synset: each of these takes an image of its own
_BLANK = pictures.file_of(Image.new("L", (64, 48), 255))


@dataclass
class Made:
    """What was made: expected faults by key, the images' bytes by key, and the synsets by label."""

    wnids: list[str]
    faults: dict[str, set[str]] = field(default_factory=dict)
    train: dict[str, list[tuple[str, bytes]]] = field(default_factory=dict)
    val: list[tuple[str, bytes]] = field(default_factory=list)
    truth: list[int] = field(default_factory=list)


def make(
    root: Path,
    synsets: int = 3,
    images: int = 4,
    val_images: int = 2,
    plant: Iterable[str] = (),
    year: Year = ILSVRC2012,
    size: tuple[int, int] = (64, 48),
    seed: int = 0,
) -> Made:
    """Writes the year's archives. A planted fault is one image more, or one more copy of one that is there."""
    plant = tuple(plant)
    _check(plant, synsets, images, val_images)
    root.mkdir(parents=True, exist_ok=True)
    made = Made([f"n{1_440_764 + 37 * i:08}" for i in range(synsets)])
    ids = _ids(synsets)
    for label, wnid in enumerate(made.wnids):
        made.train[wnid] = [(f"{wnid}_{i}", _drawn(label, i, size, seed)) for i in range(images)]
    for number in range(synsets * val_images):
        label = number % synsets
        made.val.append((f"{year.name}_val_{number + 1:08}", _drawn(label, 100_000 + number, size, seed)))
        made.truth.append(ids[label])
    for number, kind in enumerate(plant):
        _plant(made, kind, number)
    _write(root, made, ids, year)
    return made


def _check(plant: tuple[str, ...], synsets: int, images: int, val_images: int) -> None:
    if unknown := sorted(set(plant) - set(PLANTABLE)):
        raise ValueError(f"plant: no such fault {unknown[0]!r}; there are {', '.join(PLANTABLE)}")
    least = max((_LEAST_IMAGES.get(kind, 1) for kind in plant), default=1)
    if synsets < 2 or images < least or val_images < 1:
        raise ValueError(f"needs 2 synsets, {least} images and 1 validation image each; got {synsets}, {images}, {val_images}")
    if plant.count("leaked") > synsets * val_images:
        raise ValueError(f"plant: leaked stands {plant.count('leaked')} times, for {synsets * val_images} validation images")


def _drawn(label: int, number: int, size: tuple[int, int], seed: int) -> bytes:
    """Every class has a color and a number of stripes of its own, so that there is something to learn."""
    base = np.asarray(pictures.picture((seed * 1_009 + label) * 1_000_003 + number, *size), float)
    color = np.random.default_rng([seed, label]).integers(0, 256, 3)
    stripes = 50 * np.sin(np.linspace(0, 2 * np.pi * (2 + label % 9), size[1]))[:, None, None]
    return pictures.file_of(Image.fromarray(np.clip((base + 2 * color) / 3 + stripes, 0, 255).astype(np.uint8)))


def _ids(synsets: int) -> list[int]:
    """By label. The kit's ids are in another order than the wnids: whoever takes one for the other is found out."""
    return [int(each) + 1 for each in np.random.default_rng(2012).permutation(synsets)]


def _plant(made: Made, kind: str, number: int) -> None:
    wnid = made.wnids[number % len(made.wnids)]
    other = made.wnids[(number + 1) % len(made.wnids)]
    key = f"{wnid}_{900_000 + number}"
    source_key, source = made.train[wnid][0]
    if kind in ALONE:
        made.train[wnid].append((key, ALONE[kind](5_000 + number)))
        if kind in ("deep", "alpha", "palette"):
            made.faults.setdefault(key, set()).add("wrong_format")  # these exist as PNG only
        made.faults.setdefault(key, set()).add(kind)
    elif kind == "unknown_class":
        key = f"{other}_{900_000 + number}"
        made.train[wnid].append((key, _drawn(7, 7_000 + number, (64, 48), 0)))
        made.faults[key] = {kind}
    elif kind == "duplicate":
        made.train[wnid].append((key, made.train[wnid][1][1]))
        made.faults[key] = {kind}
    elif kind == "conflicting":
        key = f"{other}_{900_000 + number}"
        made.train[other].append((key, source))
        made.faults[key], made.faults[source_key] = {kind}, {kind}
        made.faults[max(key, source_key)].add("duplicate")  # in their split, they are the same bytes again too
    else:
        label = made.wnids.index(wnid)
        at = next(i for i, (val_key, _) in enumerate(made.val) if i % len(made.wnids) == label and val_key not in made.faults)
        train_key, data = made.train[wnid][2]
        made.val[at] = (made.val[at][0], data)
        made.faults[made.val[at][0]] = made.faults[train_key] = {kind}


def _write(root: Path, made: Made, ids: list[int], year: Year) -> None:
    patches: list[tuple[str, bytes]] = []
    with tarfile.open(root / year.train, "w", format=tarfile.GNU_FORMAT) as tar:
        for wnid in reversed(made.wnids):
            _add(tar, f"{wnid}.tar", tar_of(_packed(made.train[wnid], wnid, "train", year, patches)))
    (root / year.val).write_bytes(tar_of(_packed(made.val, "val", "val", year, patches)))
    if year.patches:
        (root / year.patches).write_bytes(tar_of([("patch_images/", b""), *patches]))
    truth = "".join(f"{each}\n" for each in made.truth).encode()
    kit = tar_of(
        [(year.meta, meta_mat(made, ids, year)), (year.truth, truth), (f"{year.folder}/readme.txt", b"made for tests")]
    )
    (root / year.devkit).write_bytes(gzip.compress(kit, mtime=0))


def _packed(
    images: list[tuple[str, bytes]], folder: str, split: str, year: Year, patches: list[tuple[str, bytes]]
) -> list[tuple[str, bytes]]:
    """A tar's members. The loose year has a folder before them; the first is gzipped, the last blank but for its patch."""
    files = [(f"{key}.JPEG", data) for key, data in images]
    if not year.patches:
        return files
    name, data = files[-1]
    patches.append((f"patch_images/{split}/{name}", data))
    files[-1] = (name, _BLANK)
    files[0] = (files[0][0], gzip.compress(files[0][1], mtime=0))
    return [(f"{folder}/", b""), *((f"{folder}/{name}", data) for name, data in files)]


def meta_mat(made: Made, ids: list[int], year: Year = ILSVRC2012) -> bytes:
    """The kit's MATLAB file: the classes, and one synset above them, which is none."""
    from scipy.io import savemat

    names = (f"{year.name}_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height", "num_train_images")
    rows = np.empty((len(ids) + 1, 1), [(name, object) for name in names])
    for row, (wnid, number) in enumerate(sorted(zip(made.wnids, ids, strict=True), key=lambda pair: pair[1])):
        words = f"thing {made.wnids.index(wnid)}, object {made.wnids.index(wnid)}"
        rows[row, 0] = (float(number), wnid, words, "made", 0.0, np.zeros((1, 0)), 0.0, float(len(made.train[wnid])))
    rows[-1, 0] = (float(len(ids) + 1), "n00000001", "entity", "all", float(len(ids)), np.array([ids], float), 1.0, 0.0)
    out = io.BytesIO()
    savemat(out, {"synsets": rows})
    data = out.getvalue()
    return b"MATLAB 5.0 MAT-file, made for tests".ljust(116) + data[116:]  # its own first line has the time


def tar_of(files: Iterable[tuple[str, bytes]], edit: Callable[[tarfile.TarInfo], None] | None = None) -> bytes:
    """A tar as tar writes it, without times; a name that ends in a slash is a folder's."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in files:
            _add(tar, name, data, edit)
    return out.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes, edit: Callable[[tarfile.TarInfo], None] | None = None) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    if name.endswith("/"):
        info.type = tarfile.DIRTYPE
    if edit:
        edit(info)
    tar.addfile(info, io.BytesIO(data))


def _main() -> None:
    years = {year.name.removeprefix("ILSVRC"): year for year in YEARS}
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.cli.make_ilsvrc",
        description=__doc__,
        epilog=f"faults: {' '.join(PLANTABLE)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="to write the archives to")
    parser.add_argument("--synsets", type=int, default=10, help="classes; 10 unless given")
    parser.add_argument("--images", type=int, default=60, help="training images of every synset; 60 unless given")
    parser.add_argument("--val-images", type=int, default=10, help="validation images of every synset; 10 unless given")
    parser.add_argument("--size", type=int, nargs=2, default=(256, 192), metavar=("WIDTH", "HEIGHT"), help="pixels; 256 192")
    parser.add_argument("--year", choices=years, default="2012", help="whose names and habits; 2012 unless given")
    parser.add_argument("--seed", type=int, default=0, help="another one draws other pictures")
    parser.add_argument("--plant", nargs="+", default=(), metavar="FAULT", help="faults to plant, by name; `all` plants each")
    given = parser.parse_args()
    plant = PLANTABLE if given.plant == ["all"] else given.plant
    try:
        sizes = (given.synsets, given.images, given.val_images)
        made = make(given.folder, *sizes, plant, years[given.year], tuple(given.size), given.seed)
    except ValueError as error:
        parser.error(str(error))
    for path in sorted(given.folder.iterdir()):
        print(f"{path}: {path.stat().st_size / 1e6:,.1f} MB")
    for key, kinds in sorted(made.faults.items()):
        print(f"planted: {key} is {', '.join(sorted(kinds))}")


if __name__ == "__main__":
    _main()
