"""Preparing images (decode, shorter side to 256, center square, JPEG q95), beside the usual script; and everything that grows.

    python -m benchmarks.prep                          # photographs cut from scikit-learn's two
    python -m benchmarks.prep --images FOLDER          # a folder of JPEGs
    python -m benchmarks.prep --rows 100000            # of the scale run; 0 leaves it out

Methods take turns image by image in every round, and CPU time is compared, pair by pair: what else the machine does drops out.
PSNR is of the decoded result against a resize in floating point with the same filter and the same cut.
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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

from alexnet.pixels import PixelSums
from alexnet.prepare import decode, encode, prepare
from alexnet.tarfiles import Sample, tar_of
from benchmarks import timing

SIDE_PX, QUALITY = 256, 95
ROWS = 1_281_167 + 50_000
Method = Callable[[bytes], bytes]


def usual(data: bytes) -> bytes:
    """The script that everybody writes."""
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


def ours(data: bytes) -> bytes:
    """What the shard stage does."""
    return encode(prepare(data, SIDE_PX, "triangle"), QUALITY)


def ours_area(data: bytes) -> bytes:
    """With the filter of the field's first tools."""
    return encode(prepare(data, SIDE_PX, "area"), QUALITY)


_sums = PixelSums(SIDE_PX)
_square = np.asarray(Image.effect_noise((SIDE_PX, SIDE_PX), 40).convert("RGB"))


def ours_with_statistics(data: bytes) -> bytes:
    """With the pixel statistics of the same pass."""
    pixels = prepare(data, SIDE_PX, "triangle")
    _sums.add(pixels)
    return encode(pixels, QUALITY)


def limit(data: bytes) -> bytes:
    """Decoding all pixels and encoding a square, and nothing between: what libjpeg-turbo alone takes."""
    simplejpeg.decode_jpeg(data, "RGB")
    jpeg: bytes = simplejpeg.encode_jpeg(_square, QUALITY, "RGB", "420")
    return jpeg


METHODS: dict[str, Method] = {
    "usual": usual,
    "usual_draft": usual_draft,
    "pillow_box": pillow_box,
    "torchvision_pil": torchvision_pil,
    "torchvision_tensor": torchvision_tensor,
    "ours": ours,
    "ours_area": ours_area,
    "ours_with_statistics": ours_with_statistics,
    "limit": limit,
}


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
    import sklearn.datasets

    draw = np.random.default_rng(1)
    photos = [Image.open(path) for path in sorted((Path(sklearn.datasets.__file__).parent / "images").glob("*.jpg"))]
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
    """CPU milliseconds an image, and ratios to the usual script, medians over images and rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in METHODS}
    for method in METHODS.values():
        method(images[0])  # imports and buffers
    for _ in range(rounds):
        for data in images:
            for name, method in METHODS.items():
                start = time.process_time()
                method(data)
                seconds[name].append(time.process_time() - start)
    totals = {name: sum(each) for name, each in seconds.items()}
    return {
        "cpu_ms_per_image": {name: round(1000 * total / rounds / len(images), 3) for name, total in totals.items()},
        "times_the_usual_script": {name: round(totals["usual"] / total, 2) for name, total in totals.items()},
        "times_the_usual_script_median_of_pairs": {
            name: round(statistics.median(a / b for a, b in zip(seconds["usual"], each, strict=True) if b > 0), 2)
            for name, each in seconds.items()
        },
        "share_of_the_limit": round(totals["limit"] / totals["ours"], 3),
    }


def quality(images: list[bytes]) -> dict[str, float]:
    """Mean PSNR in dB of each method's result."""
    found: dict[str, list[float]] = {
        name: [] for name in ("usual", "pillow_box", "torchvision_pil", "torchvision_tensor", "ours", "encoder_alone")
    }
    for data in images:
        box, wholes = references(data)
        for name, each in found.items():
            if name == "encoder_alone":
                each.append(psnr(decode(encode(np.clip(box + 0.5, 0, 255).astype(np.uint8), QUALITY)), box))
            else:
                pixels = decode(METHODS[name](data))
                each.append(
                    psnr(pixels, box) if name in ("ours", "pillow_box") else max(psnr(pixels, whole) for whole in wholes)
                )
    return {name: round(statistics.mean(each), 2) for name, each in found.items()}


def references(data: bytes) -> tuple[np.ndarray, list[np.ndarray]]:
    """The square by a triangle filter in floating point: cut out first, as we do; and resized whole, cut at either pixel."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    planes = [Image.fromarray(np.asarray(plane, np.float32)) for plane in image.split()]
    by = Image.Resampling.BILINEAR
    box = [np.asarray(p.resize((SIDE_PX, SIDE_PX), by, box=(left, top, left + side, top + side))) for p in planes]
    scale = SIDE_PX / side
    wholes = []
    for rounded in (round, int):  # the script rounds, torchvision cuts
        size = (rounded(image.width * scale), rounded(image.height * scale))
        resized = np.stack([np.asarray(p.resize(size, by)) for p in planes], -1)
        for x, y in {(w, h) for w in _middle(size[0]) for h in _middle(size[1])}:
            wholes.append(resized[y : y + SIDE_PX, x : x + SIDE_PX])
    return np.stack(box, -1), wholes


def _middle(length: int) -> set[int]:
    return {(length - SIDE_PX) // 2, -((SIDE_PX - length) // 2)}


def psnr(pixels: np.ndarray, reference: np.ndarray) -> float:
    """In dB, at 8 bits."""
    return float(10 * np.log10(255**2 / np.mean((pixels - reference) ** 2)))


def scaling(images: list[bytes], rounds: int) -> dict[str, object]:
    """Images a second of wall clock, tar and statistics included, by threads; the best round, for the machine may be shared."""

    def shard(some: list[bytes]) -> int:
        sums = PixelSums(SIDE_PX)

        def samples() -> list[Sample]:
            made = []
            for number, data in enumerate(some):
                pixels = prepare(data, SIDE_PX, "triangle")
                sums.add(pixels)
                made.append(Sample(f"k{number}", 0, encode(pixels, QUALITY)))
            return made

        return len(tar_of(samples()))

    best: dict[int, float] = {}
    counts = [n for n in (1, 2, 4, 8, 16) if n <= (os.cpu_count() or 1)]
    for _ in range(rounds):
        for threads in counts:
            with ThreadPoolExecutor(threads) as pool:
                start = time.perf_counter()
                list(pool.map(shard, [images[i::8] for i in range(8)]))
                best[threads] = max(best.get(threads, 0), len(images) / (time.perf_counter() - start))
    load = os.getloadavg()[0]
    return {
        "images_per_second": {str(n): round(rate) for n, rate in best.items()},
        "times_one_thread": {str(n): round(rate / best[1], 2) for n, rate in best.items()},
        "load_average": round(load, 1),
    }


def scale(rows: int) -> dict[str, object]:
    """Seconds and memory of what grows with the number of images, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.prep", "--scale-child", str(rows)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, object] = json.loads(found.stdout.splitlines()[-1])
    return result


def scale_child(rows: int) -> dict[str, object]:
    """Index, suite, shuffle and manifest for synthetic rows with planted faults."""
    from dataclasses import replace

    from alexnet.shards import Manifest, Shard, Synset
    from benchmarks.synthetic import PLANTED, batches
    from pipelines import index, params, shard
    from pipelines.suite import judge
    from pipelines.validate import make_report

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
        table = index.complete(batches(rows, config), config, 0.25)
        digest = index.write(table, Path(folder) / "index.parquet")
        seconds["index"] = time.perf_counter() - start

        start = time.perf_counter()
        rules = judge(table, config, sorted(set(table["wnid"].to_pylist())), Path(folder) / "docs", digest)
        report = make_report("imagenet", table, config, rules, digest)
        seconds["suite"] = time.perf_counter() - start

        start = time.perf_counter()
        used = table.filter(np.isin(table["action"].to_numpy(zero_copy_only=False), ["use", "repair"]))
        prefix = shard.fingerprint(used, given.shard, 1)
        tasks = [task for split in shard.SPLITS for task in shard.plan(used, split, given.shard, 1)]
        seconds["shuffle"] = time.perf_counter() - start

        start = time.perf_counter()
        made = {
            split: tuple(Shard(task.name, 1, "0" * 64, task.rows.num_rows, {}) for task in tasks if task.split == split)
            for split in shard.SPLITS
        }
        synsets = tuple(Synset(label, f"n{label:08}", "name") for label in range(1000))
        Manifest("imagenet", f"shards/{prefix}/", SIDE_PX, synsets, made).write(Path(folder) / "manifest.json")
        seconds["manifest"] = time.perf_counter() - start
        size = (Path(folder) / "index.parquet").stat().st_size
    found = {kind: fault["images"] for kind, fault in report["faults"].items()}
    return {
        "rows": rows,
        "seconds": {name: round(each, 1) for name, each in seconds.items()},
        "seconds_in_all": round(sum(seconds.values()), 1),
        "peak_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "index_mb": round(size / 1e6, 1),
        "planted": dict(sorted(PLANTED.items())),
        "found": dict(sorted(found.items())),
        "exactly_the_planted": found == PLANTED,
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
        "speed": speed(images, given.rounds),
        "psnr_db": quality(images[:60]),
        "scaling": scaling(images, 3),
    }
    if given.rows:
        result["scale"] = scale(given.rows)
    timing.write("prep", result)


if __name__ == "__main__":
    main()
