"""Makes archives in the format of ILSVRC2012's distribution, drawn deterministically, with faults planted where asked.

python -m tests.ilsvrc FOLDER [--synsets 10] [--images 20] [--val-images 5] [--plant cmyk truncated ...]
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

from pipelines.sources.devkit import ILSVRC2012, Year
from tests import pictures

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
) -> Made:
    """Writes the three archives. A planted fault is one image more, or one more copy of one that is there."""
    root.mkdir(parents=True, exist_ok=True)
    made = Made([f"n{1_440_764 + 37 * i:08}" for i in range(synsets)])
    ids = _ids(synsets)
    for label, wnid in enumerate(made.wnids):
        made.train[wnid] = [(f"{wnid}_{i}", _drawn(label, i, size)) for i in range(images)]
    for number in range(synsets * val_images):
        label = number % synsets
        made.val.append((f"{year.name}_val_{number + 1:08}", _drawn(label, 100_000 + number, size)))
        made.truth.append(ids[label])
    for number, kind in enumerate(plant):
        _plant(made, kind, number)
    _write(root, made, ids, year)
    return made


def _drawn(label: int, number: int, size: tuple[int, int]) -> bytes:
    """Every class has a color of its own, so that there is something to learn."""
    base = np.asarray(pictures.picture(label * 1_000_003 + number, *size), int)
    color = np.random.default_rng(label).integers(0, 256, 3)
    return pictures.file_of(Image.fromarray(((base + 2 * color) // 3).astype(np.uint8)))


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
        made.train[wnid].append((key, _drawn(7, 7_000 + number, (64, 48))))
        made.faults[key] = {kind}
    elif kind == "duplicate":
        made.train[wnid].append((key, made.train[wnid][1][1]))
        made.faults[key] = {kind}
    elif kind == "conflicting":
        key = f"{other}_{900_000 + number}"
        made.train[other].append((key, source))
        made.faults[key] = made.faults[source_key] = {kind}
    elif kind == "leaked":
        label = made.wnids.index(wnid)
        at = next(i for i, (val_key, _) in enumerate(made.val) if i % len(made.wnids) == label and val_key not in made.faults)
        train_key, data = made.train[wnid][2]
        made.val[at] = (made.val[at][0], data)
        made.faults[made.val[at][0]] = made.faults[train_key] = {kind}
    else:
        raise ValueError(f"plant: no such fault {kind!r}; there are {', '.join(PLANTABLE)}")


def _write(root: Path, made: Made, ids: list[int], year: Year) -> None:
    inner = {f"{wnid}.tar": tar_of([(f"{key}.JPEG", data) for key, data in made.train[wnid]]) for wnid in reversed(made.wnids)}
    (root / year.train).write_bytes(tar_of(list(inner.items())))
    (root / year.val).write_bytes(tar_of([(f"{key}.JPEG", data) for key, data in made.val]))
    truth = "".join(f"{each}\n" for each in made.truth).encode()
    kit = tar_of(
        [(year.meta, meta_mat(made, ids, year)), (year.truth, truth), (f"{year.folder}/readme.txt", b"made for tests")]
    )
    (root / year.devkit).write_bytes(gzip.compress(kit, mtime=0))


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


def tar_of(files: list[tuple[str, bytes]], edit: Callable[[tarfile.TarInfo], None] | None = None) -> bytes:
    """A tar as tar writes it, without times."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if edit:
                edit(info)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.ilsvrc", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--synsets", type=int, default=10)
    parser.add_argument("--images", type=int, default=20, help="training images of every synset")
    parser.add_argument("--val-images", type=int, default=5, help="validation images of every synset")
    parser.add_argument("--plant", nargs="*", default=(), choices=PLANTABLE)
    given = parser.parse_args()
    print(make(given.folder, given.synsets, given.images, given.val_images, given.plant).faults)
