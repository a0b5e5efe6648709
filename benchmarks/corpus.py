"""The images of the input benchmark: 256-pixel JPEGs of photographs, as shards and as one folder a class."""

import hashlib
import json
from collections import Counter
from dataclasses import asdict
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from alexnet.config import build
from alexnet.shards.manifest import Shard
from alexnet.shards.tar import Sample, tar_of

SIDE_PX = 256
CLASSES = 10
QUALITY = 95


def make(images: Path | None, count: int, shards: int, folder: Path) -> list[Shard]:
    """`count` samples in `folder`/shards (described in shards.json) and `folder`/tree; made once.

    Args:
        images: A folder of photographs, with its subfolders; None crops scikit-learn's two.
        count: Samples.
        shards: Tars to spread them over.
        folder: Where to write.
    """
    listing = folder / "shards.json"
    if not listing.exists():
        jpegs = [_encode(image) for image in _squares(images, count)]
        (folder / "shards").mkdir(parents=True, exist_ok=True)
        made = [asdict(_write(folder, jpegs, number, shards)) for number in range(shards)]
        listing.write_text(json.dumps(made), encoding="utf-8")
    return [build(Shard, entry, str(listing)) for entry in json.loads(listing.read_text(encoding="utf-8"))]


def _write(folder: Path, jpegs: list[bytes], number: int, shards: int) -> Shard:
    samples = [Sample(f"k{i:06}", i % CLASSES, jpegs[i]) for i in range(number, len(jpegs), shards)]
    for sample in samples:
        path = folder / "tree" / f"class{sample.label}" / f"{sample.key}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(sample.jpeg)
    tar, name = tar_of(samples), f"train-{number:06}.tar"
    (folder / "shards" / name).write_bytes(tar)
    return Shard(name, len(tar), hashlib.sha256(tar).hexdigest(), len(samples), dict(Counter(s.label for s in samples)))


def _squares(images: Path | None, count: int) -> list[Image.Image]:
    """Random square boxes of photographs, shrunk to 256 pixels, every one different."""
    draw = np.random.default_rng(1)
    paths = sorted(p for p in images.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg")) if images else sklearn_photographs()
    chosen = [paths[i] for i in draw.permutation(len(paths))]
    return [_square(Image.open(chosen[i % len(chosen)]).convert("RGB"), draw) for i in range(count)]


def _square(photo: Image.Image, draw: np.random.Generator) -> Image.Image:
    side = int(min(photo.size) * draw.uniform(0.7, 1.0))
    left, top = (int(draw.integers(0, length - side + 1)) for length in photo.size)
    return photo.resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))


def _encode(image: Image.Image) -> bytes:
    file = BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def sklearn_photographs() -> list[Path]:
    """The two photographs in the package scikit-learn."""
    import sklearn.datasets

    return sorted((Path(sklearn.datasets.__file__).parent / "images").glob("*.jpg"))
