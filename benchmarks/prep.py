"""Benchmark of preparing images (decode, shorter side to 256, center square, JPEG q95), and of what grows with their number.

    python -m benchmarks.prep                          # photographs cut from scikit-learn's two
    python -m benchmarks.prep --images FOLDER          # a folder of JPEGs
    python -m benchmarks.prep --rows 100000            # of the scale run; 0 leaves it out

Methods take turns: in a round each goes through all images, as a stage does. CPU time is compared, of every image the minimum
over the rounds, which other load on the machine affects least.
PSNR is of the decoded result against a resize in floating point with the same filter and the same cut. A library that is not
installed is left out: `opencv` needs opencv-python-headless, which nothing else here does.
"""

import argparse
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image

from alexnet.images.resize import decode, encode, prepare, resize
from alexnet.images.statistics import PixelSums
from alexnet.shards.tar import Sample, tar_of
from benchmarks import timing
from benchmarks.corpus import sklearn_photographs

SIDE_PX, QUALITY = 256, 95
ROWS = 1_281_167 + 50_000
Method = Callable[[bytes], bytes]


def usual(data: bytes) -> bytes:
    """The usual script: Pillow, whole image resized, then cropped."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    scale = SIDE_PX / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    return _saved(_center(image))


def usual_draft(data: bytes) -> bytes:
    """The same, letting libjpeg shrink large images."""
    file = Image.open(io.BytesIO(data))
    file.draft("RGB", (SIDE_PX, SIDE_PX))
    image = file.convert("RGB")
    scale = SIDE_PX / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    return _saved(_center(image))


def pillow_box(data: bytes) -> bytes:
    """The best of Pillow alone: shrink while decoding, resize only the square."""
    file = Image.open(io.BytesIO(data))
    file.draft("RGB", (2 * SIDE_PX, 2 * SIDE_PX))
    image = file.convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return _saved(image.resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR, box=box))


def torchvision_pil(data: bytes) -> bytes:
    """torchvision's transforms on a Pillow image."""
    from torchvision.transforms import CenterCrop, Compose, Resize

    image = Image.open(io.BytesIO(data)).convert("RGB")
    return _saved(Compose([Resize(SIDE_PX), CenterCrop(SIDE_PX)])(image))


def torchvision_tensor(data: bytes) -> bytes:
    """torchvision's own codecs and antialiased resize."""
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg, encode_jpeg
    from torchvision.transforms.v2.functional import center_crop, resize

    pixels = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)
    square = center_crop(resize(pixels, [SIDE_PX], antialias=True), [SIDE_PX, SIDE_PX])
    jpeg: bytes = encode_jpeg(square, QUALITY).numpy().tobytes()
    return jpeg


def opencv(data: bytes) -> bytes:
    """OpenCV's codecs, and the only one of its filters that is antialiased."""
    import cv2

    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    square = _opencv_square(image)
    jpeg: bytes = cv2.imencode(".jpg", square, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
    return jpeg


def _opencv_square(image: np.ndarray) -> np.ndarray:
    import cv2

    height, width = image.shape[:2]
    scale = SIDE_PX / min(height, width)
    resized = cv2.resize(image, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
    top, left = (resized.shape[0] - SIDE_PX) // 2, (resized.shape[1] - SIDE_PX) // 2
    square: np.ndarray = resized[top : top + SIDE_PX, left : left + SIDE_PX]
    return square


def pillow_our_resize(data: bytes) -> bytes:
    """Pillow's codecs with the resizer that we use."""
    return _saved(Image.fromarray(resize(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")), SIDE_PX, "triangle")))


_sums = PixelSums(SIDE_PX)
_square = np.asarray(Image.effect_noise((SIDE_PX, SIDE_PX), 40).convert("RGB"))


def ours(data: bytes) -> bytes:
    """What the shard stage does with an image, the pixel statistics of the same pass included."""
    pixels = prepare(data, SIDE_PX, "triangle")
    _sums.add(pixels)
    return encode(pixels, QUALITY)


def ours_without_statistics(data: bytes) -> bytes:
    """What the shard stage does with a validation image."""
    return encode(prepare(data, SIDE_PX, "triangle"), QUALITY)


def ours_area(data: bytes) -> bytes:
    """The same with the filter `area`."""
    pixels = prepare(data, SIDE_PX, "area")
    _sums.add(pixels)
    return encode(pixels, QUALITY)


def limit(data: bytes) -> bytes:
    """Decoding all pixels and encoding a square, nothing else: the time of libjpeg-turbo alone."""
    simplejpeg.decode_jpeg(data, "RGB")
    jpeg: bytes = simplejpeg.encode_jpeg(_square, QUALITY, "RGB", "420")
    return jpeg


METHODS: dict[str, Method] = {
    "usual": usual,
    "usual_draft": usual_draft,
    "pillow_box": pillow_box,
    "torchvision_pil": torchvision_pil,
    "torchvision_tensor": torchvision_tensor,
    "opencv": opencv,
    "pillow_our_resize": pillow_our_resize,
    "ours": ours,
    "ours_without_statistics": ours_without_statistics,
    "ours_area": ours_area,
    "limit": limit,
}
NEEDS = {"opencv": "cv2", "torchvision_pil": "torchvision", "torchvision_tensor": "torchvision"}
LEFT_OUT = [name for name, module in NEEDS.items() if find_spec(module) is None]
for _name in LEFT_OUT:
    del METHODS[_name]


def _center(image: Image.Image) -> Image.Image:
    left, top = (image.width - SIDE_PX) // 2, (image.height - SIDE_PX) // 2
    return image.crop((left, top, left + SIDE_PX, top + SIDE_PX))


def _saved(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=QUALITY)
    return out.getvalue()


def photographs(folder: Path | None, count: int) -> list[bytes]:
    """JPEG files of a folder, spread over it; without one, boxes cut out of scikit-learn's two photographs, with noise."""
    if folder:
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
        return [path.read_bytes() for path in paths[:: max(1, len(paths) // count)][:count]]
    draw = np.random.default_rng(1)
    photos = [Image.open(path) for path in sklearn_photographs()]
    return [_photograph(photos[number % len(photos)], draw) for number in range(count)]


def _photograph(photo: Image.Image, draw: np.random.Generator) -> bytes:
    """A box of 4:3, at ImageNet's usual 500x375."""
    width = int(draw.integers(400, 560))
    left, top = int(draw.integers(0, photo.width - width)), int(draw.integers(0, photo.height - width * 3 // 4))
    box = photo.crop((left, top, left + width, top + width * 3 // 4)).resize((500, 375), Image.Resampling.LANCZOS)
    noisy = np.asarray(box, float) + draw.normal(0, 3, (375, 500, 3))
    out = io.BytesIO()
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(out, "JPEG", quality=int(draw.integers(88, 98)))
    return out.getvalue()


def speed(images: list[bytes], rounds: int) -> dict[str, object]:
    """CPU milliseconds an image, and ratios to the usual script.

    Of every image and method the minimum over the rounds counts: other load on the machine only adds time.
    """
    names = list(METHODS)
    seconds: dict[str, list[list[float]]] = {name: [] for name in names}  # by method, round and image
    for method in METHODS.values():
        method(images[0])  # imports and buffers
    for number in range(rounds):
        for each in seconds.values():
            each.append([])
        for name in names[number % len(names) :] + names[: number % len(names)]:
            for data in images:
                start = time.process_time()
                METHODS[name](data)
                seconds[name][-1].append(time.process_time() - start)
    least = {name: [min(times) for times in zip(*each, strict=True)] for name, each in seconds.items()}
    totals = {name: sum(each) for name, each in least.items()}
    return {
        "cpu_ms_per_image": {name: round(1000 * total / len(images), 3) for name, total in totals.items()},
        "times_the_usual_script": {name: round(totals["usual"] / total, 2) for name, total in totals.items()},
        "times_the_usual_script_median_of_images": {
            name: round(statistics.median(a / b for a, b in zip(least["usual"], each, strict=True)), 2)
            for name, each in least.items()
        },
        "share_of_the_limit": round(totals["limit"] / totals["ours"], 3),
    }


def quality(images: list[bytes]) -> dict[str, float]:
    """Mean PSNR in dB of each method's result."""
    found: dict[str, list[float]] = {name: [] for name in METHODS if name not in ("ours_without_statistics", "limit")}
    found["encoder_alone"] = []
    for data in images:
        triangle, area = references(data, Image.Resampling.BILINEAR), references(data, Image.Resampling.BOX)
        for name, each in found.items():
            if name == "encoder_alone":
                pixels, allowed = decode(encode(np.clip(triangle[0] + 0.5, 0, 255).astype(np.uint8), QUALITY)), triangle[:1]
            else:
                pixels = decode(METHODS[name](data))
                if name == "opencv":
                    allowed = [_opencv_square(np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.float32))]
                else:
                    allowed = area[:1] if name == "ours_area" else triangle
            each.append(max(psnr(pixels, reference) for reference in allowed))
    return {name: round(statistics.mean(each), 2) for name, each in found.items()}


def references(data: bytes, by: Image.Resampling) -> list[np.ndarray]:
    """The square by a filter in floating point: cut out first, as we do; resized whole and cut at any of its middle pixels."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    planes = [Image.fromarray(np.asarray(plane, np.float32)) for plane in image.split()]
    box = (left, top, left + side, top + side)
    squares = [np.stack([np.asarray(p.resize((SIDE_PX, SIDE_PX), by, box=box)) for p in planes], -1)]
    scale = SIDE_PX / side
    for rounded in (round, int):  # the script rounds, torchvision cuts
        size = (rounded(image.width * scale), rounded(image.height * scale))
        resized = np.stack([np.asarray(p.resize(size, by)) for p in planes], -1)
        for x, y in {(w, h) for w in _middle(size[0]) for h in _middle(size[1])}:
            squares.append(resized[y : y + SIDE_PX, x : x + SIDE_PX])
    return squares


def _middle(length: int) -> set[int]:
    return {(length - SIDE_PX) // 2, -((SIDE_PX - length) // 2)}


def psnr(pixels: np.ndarray, reference: np.ndarray) -> float:
    """In dB, at 8 bits."""
    return float(10 * np.log10(255**2 / np.mean((pixels - reference) ** 2)))


def scaling(images: list[bytes], rounds: int) -> dict[str, object]:
    """Images a second of wall clock, tar and statistics included, by threads that take turns; and ratios within a round.

    The best rounds count: other load on the machine only lowers the rates.
    """

    def shard(batch: list[bytes]) -> int:
        sums = PixelSums(SIDE_PX)
        made = []
        for number, data in enumerate(batch):
            pixels = prepare(data, SIDE_PX, "triangle")
            sums.add(pixels)
            made.append(Sample(f"k{number}", 0, encode(pixels, QUALITY)))
        return len(tar_of(made))

    counts = [n for n in (1, 2, 4, 8, 16) if n <= len(os.sched_getaffinity(0))]
    work = [images] * 2 * max(counts)
    rates: dict[int, list[float]] = {n: [] for n in counts}
    alone = []  # of every round: whether the single thread had a core of its own
    with ExitStack() as stack:
        pools = {n: stack.enter_context(ThreadPoolExecutor(n)) for n in counts}
        for pool in pools.values():
            list(pool.map(shard, work))  # every thread makes its resizer
        for _ in range(rounds):
            for threads, pool in pools.items():
                start, cpu = time.perf_counter(), time.process_time()
                list(pool.map(shard, work))
                seconds = time.perf_counter() - start
                rates[threads].append(len(images) * len(work) / seconds)
                if threads == 1:
                    alone.append(time.process_time() - cpu > 0.97 * seconds)
    chosen = [number for number, undisturbed in enumerate(alone) if undisturbed] or range(rounds)
    return {
        "images_per_second": {str(n): round(max(rates[n])) for n in counts},
        "times_one_thread": {str(n): round(max(rates[n][i] / rates[1][i] for i in chosen), 2) for n in counts},
        "rounds": rounds,
        "rounds_with_a_core_of_its_own_for_one_thread": sum(alone),
        "load_average": round(os.getloadavg()[0], 1),
    }


class _Far:
    """A source in a store that answers every read after this many seconds."""

    def __init__(self, images: list[bytes], seconds: float) -> None:
        self._images = images
        self._seconds = seconds

    def read(self, _: str, offset: int, __: int) -> bytes:
        time.sleep(self._seconds)
        return self._images[offset]


def far(images: list[bytes], milliseconds: tuple[int, ...] = (0, 10, 30, 100)) -> dict[str, object]:
    """Images a second of one thread that makes shards from a store, by how long the store takes to answer a read."""
    import pyarrow as pa

    from pipelines import shard
    from pipelines.config import params
    from pipelines.validation import index

    nothing = dict.fromkeys(index.SCHEMA.names)
    images = images * -(-200 // len(images))
    rows = [
        nothing | {"key": f"k{i}", "label": 0, "path": "", "offset": i, "bytes": len(data), "sha256": sha256(data).hexdigest()}
        for i, data in enumerate(images)
    ]
    task = shard.Task("train", 0, pa.Table.from_pylist(rows, index.SCHEMA))
    config = replace(params.load().shard, side_px=SIDE_PX, jpeg_quality=QUALITY, filter="triangle")
    rates = {}
    for each in milliseconds:
        source: Any = _Far(images, each / 1000)
        start = time.perf_counter()
        tar_of(shard.samples(source, config, task, PixelSums(SIDE_PX), Counter()))
        rates[str(each)] = len(images) / (time.perf_counter() - start)
    return {
        "images_per_second_by_milliseconds": {each: round(rate) for each, rate in rates.items()},
        "if_reads_were_waited_for": {str(each): round(1 / (1 / rates["0"] + each / 1000)) for each in milliseconds},
    }


def scale(rows: int) -> dict[str, object]:
    """Seconds and memory of what grows with the number of images, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.prep", "--scale-child", str(rows)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, object] = json.loads(found.stdout.splitlines()[-1])
    return result


def scale_child(rows: int) -> dict[str, object]:
    """Index, expectations, shuffle and manifest of synthetic rows with planted faults."""
    from alexnet.shards.manifest import Manifest, Shard, Synset
    from benchmarks.synthetic import batches, keys_by_fault
    from pipelines import shard
    from pipelines.config import params
    from pipelines.validate import make_report
    from pipelines.validation import index
    from pipelines.validation.expectations import check_index

    given = params.load(preset="imagenet")
    counts = replace(given.validate.counts, classes=1000, train_images=None, val_images=None)
    config = replace(
        given.validate,
        counts=counts,
        policy=given.validate.policy | {"duplicate": "drop", "leaked": "stop", "conflicting": "stop"},
    )
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        table = index.complete(batches(rows), config, 0.25)
        digest = index.write(table, Path(folder) / "index.parquet")
        seconds["index"] = time.perf_counter() - start

        start = time.perf_counter()
        rules = check_index(table, config, sorted(set(table["wnid"].to_pylist())), Path(folder) / "docs", digest)
        report = make_report("imagenet", table, config, rules, digest)
        seconds["suite"] = time.perf_counter() - start

        start = time.perf_counter()
        used = table.filter(np.isin(table["action"].to_numpy(zero_copy_only=False), ["use", "repair"]))
        prefix = shard.fingerprint(used, given.shard, 1)
        tasks = [task for split in index.splits_of(used) for task in shard.plan(used, split, given.shard, 1)]
        seconds["shuffle"] = time.perf_counter() - start

        start = time.perf_counter()
        made = {
            split: tuple(Shard(task.name(), 1, "0" * 64, task.rows.num_rows, {}) for task in tasks if task.split == split)
            for split in index.splits_of(used)
        }
        synsets = tuple(Synset(label, f"n{label:08}", "name") for label in range(1000))
        Manifest("imagenet", f"shards/{prefix}/", SIDE_PX, synsets, made).write(Path(folder) / "manifest.json")
        seconds["manifest"] = time.perf_counter() - start
        size = (Path(folder) / "index.parquet").stat().st_size
    # Of a fault the report names a thousand keys at most, and fewer are planted.
    found = {kind: set(fault.keys) for kind, fault in report.faults.items()}
    wanted = keys_by_fault(rows)
    named = {kind: set(rule.keys) for kind in wanted for rule in rules if rule.rule.startswith(f"No image is {kind}:")}
    return {
        "rows": rows,
        "seconds": {name: round(each, 1) for name, each in seconds.items()},
        "seconds_in_all": round(sum(seconds.values()), 1),
        "peak_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "index_mb": round(size / 1e6, 1),
        "planted": {kind: len(keys) for kind, keys in sorted(wanted.items())},
        "found": {kind: len(keys) for kind, keys in sorted(found.items())},
        "exactly_the_planted_images": found == named == wanted,
    }


def main() -> None:
    """Measures and writes results/prep.json."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.prep", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--images", type=Path, help="a folder of JPEGs")
    parser.add_argument("--count", type=int, default=120, help="images")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=ROWS, help="of the scale run; 0: none")
    parser.add_argument("--scale-child", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.scale_child:
        print(json.dumps(scale_child(given.scale_child)))
        return
    images = photographs(given.images, given.count)
    result: dict[str, object] = {
        "images": {"count": len(images), "mean_bytes": round(statistics.mean(map(len, images)))},
        "left_out": LEFT_OUT,
        "speed": speed(images, given.rounds),
        "psnr_db": quality(images[:60]),
        "scaling": scaling(images, 2 * given.rounds),
        "far": far(images),
    }
    if given.rows:
        result["scale"] = scale(given.rows)
    timing.write("prep", result)


if __name__ == "__main__":
    main()
