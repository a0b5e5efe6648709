"""Images judged per second of CPU time: decoding every file whole and naming its faults, beside what people run.

    python -m benchmarks.validate                      # photographs cut from scikit-learn's two
    python -m benchmarks.validate --images FOLDER

`pillow`: `verify`, then `load`, size, mode and SHA-256, as usual scripts do; it names no fault but a broken file.
`decoding`: libjpeg-turbo alone, what reading every pixel costs at the least. One thread each; they take turns.
"""

import argparse
import hashlib
import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import simplejpeg
from PIL import Image

from alexnet.images.inspect import inspect_image
from benchmarks import timing
from benchmarks.prep import photographs
from pipelines.config import params


def _pillow(data: bytes) -> object:
    Image.open(io.BytesIO(data)).verify()
    image = Image.open(io.BytesIO(data))
    image.load()
    return image.size, image.mode, hashlib.sha256(data).hexdigest()


def measure(images: list[bytes], rounds: int) -> dict[str, Any]:
    """CPU milliseconds an image, of every candidate the median over rounds, and the median of the rounds' ratios."""
    config = params.load(preset="imagenet").validate
    candidates: dict[str, Callable[[bytes], object]] = {
        "ours": lambda data: (inspect_image(data, "photo.jpg", config), hashlib.sha256(data).hexdigest()),
        "pillow": _pillow,
        "decoding": lambda data: simplejpeg.decode_jpeg(data, fastdct=True, fastupsample=True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds + 1):
        for name, judge in candidates.items():
            start = time.process_time()
            for data in images:
                judge(data)
            if number:  # the first round warms up
                seconds[name].append(time.process_time() - start)
    return {
        "images": len(images),
        "cpu_ms_per_image": {name: round(statistics.median(times) / len(images) * 1e3, 3) for name, times in seconds.items()},
        "faster_than": {peer: round(timing.ratio(seconds[peer], seconds["ours"]), 2) for peer in ("pillow", "decoding")},
    }


def main() -> None:
    """Measures and writes results/validate.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="a folder of JPEGs")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    timing.write("validate", measure(photographs(args.images, 120), args.rounds))


if __name__ == "__main__":
    main()
