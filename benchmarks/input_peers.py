"""The loaders that the input benchmark compares: each gives an epoch of uint8 or float 224-pixel crops, flipped at random.

A loader is made once, for a number of workers, and then asked for epochs. What a package needs of its own is made beside the
corpus. Packages are imported where they are used: a peer that is not installed is left out.
"""

import itertools
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
from torch import Tensor

from alexnet.loading.dataset import ShardDataset
from alexnet.loading.device import to_device
from alexnet.loading.loader import Loader
from alexnet.loading.sampler import BatchSampler
from alexnet.shards.cache import ShardCache
from alexnet.shards.manifest import Shard
from benchmarks.corpus import CLASSES, QUALITY, SIDE_PX

BATCH = 128
_ROWS = 8  # samples that a thread of the limit takes at a time
CROP_PX = 224
Epoch = Callable[[], Iterator[int]]  # gives the size of every batch of an epoch
Maker = Callable[[Path, list[Shard], int], Epoch]


def samples_of(folder: Path, shards: list[Shard]) -> ShardDataset:
    """The corpus as one split, in a warm cache."""

    def fetch(name: str, start: int, size: int) -> Iterator[bytes]:
        yield (folder / "shards" / name).read_bytes()[start : start + size]

    return ShardDataset(shards, ShardCache(folder / "cache", fetch), side_px=SIDE_PX, classes=CLASSES)


# The limit, and ours.


def decode_only(folder: Path, shards: list[Shard], workers: int) -> Epoch:
    """JPEG decoding alone: libjpeg-turbo on bytes in memory, into one buffer a thread; no reading, batching or cropping.

    Threads take the next few samples when they are done with theirs, as our loader's do.
    """
    samples = samples_of(folder, shards)
    jpegs = [bytes(samples.open(n).jpeg(row)) for n, shard in enumerate(shards) for row in range(shard.samples)]

    def decode(starts: Iterator[int], done: "Iterator[int]", batches: threading.Semaphore) -> None:
        image = np.empty((SIDE_PX, SIDE_PX, 3), np.uint8)
        for start in starts:
            for jpeg in jpegs[start : start + _ROWS]:
                simplejpeg.decode_jpeg(jpeg, "RGB", buffer=image)
            if next(done) % (BATCH // _ROWS) == 0:
                batches.release()

    def epoch() -> Iterator[int]:
        starts, done, batches = iter(range(0, len(jpegs), _ROWS)), itertools.count(1), threading.Semaphore(0)
        threads = [threading.Thread(target=decode, args=(starts, done, batches)) for _ in range(workers)]
        for thread in threads:
            thread.start()
        for _ in range(len(jpegs) // BATCH):
            batches.acquire()
            yield BATCH
        for thread in threads:
            thread.join()
        yield len(jpegs) % BATCH

    return epoch


def ours(folder: Path, shards: list[Shard], workers: int) -> Epoch:
    """This project's loader: whole images, which the device crops and flips as part of the training step."""
    loader = Loader(samples_of(folder, shards), BatchSampler(BATCH, seed=1, shuffle=True), workers=workers)
    count = itertools.count()

    def epoch() -> Iterator[int]:
        number = next(count)
        for batch in loader.epoch(number):
            yield len(batch.images)

    return epoch


def on_gpu(folder: Path, shards: list[Shard], workers: int, *, encoded: bool) -> Epoch:
    """This project's loader up to the GPU's memory; `encoded` has nvJPEG decode there."""
    if not torch.cuda.is_available():
        raise RuntimeError("this machine has no GPU")
    device = torch.device("cuda")
    sampler = BatchSampler(BATCH, seed=1, shuffle=True)
    loader = Loader(samples_of(folder, shards), sampler, workers=workers, pin_memory=not encoded)
    count = itertools.count()

    def epoch() -> Iterator[int]:
        number = next(count)
        for batch in to_device(loader.epoch_encoded(number) if encoded else loader.epoch(number), device):
            torch.cuda.current_stream(device).synchronize()
            yield len(batch.images)

    return epoch


# Peers that are installed with the project's own tests.


def _float_views() -> Any:
    from torchvision.transforms import v2

    return v2.Compose(
        [
            v2.RandomCrop(CROP_PX),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )


def _byte_views() -> Any:
    from torchvision.transforms import v2

    return v2.Compose([v2.RandomCrop(CROP_PX), v2.RandomHorizontalFlip(), v2.PILToTensor()])


def _sizes(loader: Any) -> Epoch:
    def epoch() -> Iterator[int]:
        for images, *_ in loader:
            yield len(images)

    return epoch


def image_folder(folder: Path, _shards: list[Shard], workers: int, *, views: Callable[[], Any]) -> Epoch:
    """torchvision's ImageFolder, PIL, a DataLoader of processes."""
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder

    dataset = ImageFolder(str(folder / "tree"), views())
    return _sizes(DataLoader(dataset, BATCH, shuffle=True, num_workers=workers, persistent_workers=True))


def _on_bytes(jpeg: bytes, views: Any) -> Any:
    from io import BytesIO

    from PIL import Image

    return views(Image.open(BytesIO(jpeg)).convert("RGB"))


def decoded_crop(jpeg: bytes) -> Tensor:
    """The fastest decoding of one sample that a peer's worker can be given: simplejpeg, a crop, a flip."""
    image = torch.from_numpy(simplejpeg.decode_jpeg(jpeg, "RGB"))
    top, left, flip = torch.randint(SIDE_PX - CROP_PX + 1, (3,)).tolist()
    crop = image[top : top + CROP_PX, left : left + CROP_PX]
    return (crop.flip(1) if flip % 2 else crop).contiguous()


def webdataset(folder: Path, shards: list[Shard], workers: int, *, fast: bool) -> Epoch:
    """WebDataset and a DataLoader of processes, with PIL as its manual has it, or with the fastest decoder."""
    import webdataset as wds
    from torch.utils.data import DataLoader

    decode = decoded_crop if fast else partial(_on_bytes, views=_float_views())
    urls = [str(folder / "shards" / shard.name) for shard in shards]
    dataset = (
        wds.WebDataset(urls, shardshuffle=len(urls)).shuffle(1000).to_tuple("jpg", "cls").map_tuple(decode, int).batched(BATCH)
    )
    return _sizes(DataLoader(dataset, None, num_workers=workers, persistent_workers=True))


# Peers of an environment of their own.


def ffcv(folder: Path, _shards: list[Shard], workers: int) -> Epoch:
    """FFCV on JPEGs, its own threads, crop and flip compiled by it."""
    from ffcv.fields import IntField, RGBImageField
    from ffcv.fields.basics import IntDecoder
    from ffcv.fields.rgb_image import SimpleRGBImageDecoder
    from ffcv.loader import Loader as FfcvLoader
    from ffcv.loader import OrderOption
    from ffcv.pipeline.allocation_query import AllocationQuery
    from ffcv.pipeline.operation import Operation
    from ffcv.transforms import ToTensor
    from ffcv.writer import DatasetWriter
    from torchvision.datasets import ImageFolder

    class Crop(Operation):
        def generate_code(self) -> Callable[..., Any]:
            draw = np.random.randint  # the one that numba compiles

            def crop(images: Any, out: Any) -> Any:
                for i in range(images.shape[0]):
                    top, left = draw(0, SIDE_PX - CROP_PX + 1), draw(0, SIDE_PX - CROP_PX + 1)
                    view = images[i, top : top + CROP_PX, left : left + CROP_PX]
                    if draw(0, 2):
                        out[i] = view[:, ::-1]
                    else:
                        out[i] = view
                return out[: images.shape[0]]

            return crop

        def declare_state_and_memory(self, previous_state: Any) -> Any:
            from dataclasses import replace

            return replace(previous_state, shape=(CROP_PX, CROP_PX, 3)), AllocationQuery((CROP_PX, CROP_PX, 3), np.dtype("u1"))

    path = folder / f"ffcv-{QUALITY}.beton"
    if not path.exists():
        fields = {"image": RGBImageField(write_mode="jpg", jpeg_quality=QUALITY), "label": IntField()}
        DatasetWriter(str(path), fields, num_workers=1).from_indexed_dataset(ImageFolder(str(folder / "tree")))
    pipelines = {"image": [SimpleRGBImageDecoder(), Crop(), ToTensor()], "label": [IntDecoder(), ToTensor()]}
    return _sizes(FfcvLoader(str(path), BATCH, workers, True, OrderOption.RANDOM, pipelines=pipelines, drop_last=False))


def dali(folder: Path, _shards: list[Shard], workers: int) -> Epoch:
    """NVIDIA DALI's CPU pipeline: the decoder that crops, then a flip."""
    from nvidia.dali import fn, pipeline_def, types

    @pipeline_def(batch_size=BATCH, num_threads=workers, device_id=None, prefetch_queue_depth=3)
    def pipe() -> Any:
        jpegs, labels = fn.readers.file(file_root=str(folder / "tree"), random_shuffle=True, name="reader")
        x, y = fn.random.uniform(range=(0, 1)), fn.random.uniform(range=(0, 1))
        images = fn.decoders.image_crop(
            jpegs, device="cpu", crop=(CROP_PX, CROP_PX), crop_pos_x=x, crop_pos_y=y, output_type=types.RGB
        )
        return fn.flip(images, horizontal=fn.random.coin_flip()), labels

    made = pipe()
    made.build()
    total = made.epoch_size("reader")

    def epoch() -> Iterator[int]:
        for start in range(0, total, BATCH):
            images, _ = made.run()
            yield min(len(images), total - start)

    return epoch


def litdata(folder: Path, _shards: list[Shard], workers: int) -> Epoch:
    """LitData's optimized chunks and its DataLoader of processes."""
    from litdata import StreamingDataLoader, StreamingDataset
    from litdata.streaming.cache import Cache

    target = folder / "litdata"
    if not target.exists():
        cache = Cache(str(target), chunk_bytes="16MB")
        for i, path in enumerate(sorted((folder / "tree").rglob("*.jpg"))):
            cache[i] = {"image": path.read_bytes(), "label": int(path.parent.name[5:])}
        cache.done()
        cache.merge()

    class Decoded(StreamingDataset):  # type: ignore[misc]
        def __getitem__(self, index: Any) -> Any:
            sample = super().__getitem__(index)
            return decoded_crop(sample["image"]), sample["label"]

    loader = StreamingDataLoader(
        Decoded(str(target), shuffle=True), batch_size=BATCH, num_workers=workers, persistent_workers=True
    )
    return _sizes(loader)


def grain(folder: Path, _shards: list[Shard], workers: int) -> Epoch:
    """Grain's threads over the files of the tree."""
    import grain.python as pygrain

    paths = sorted((folder / "tree").rglob("*.jpg"))

    def load(path: Path) -> np.ndarray[Any, Any]:
        return decoded_crop(path.read_bytes()).numpy()

    options = pygrain.ReadOptions(num_threads=workers, prefetch_buffer_size=3 * BATCH)
    count = itertools.count()

    def epoch() -> Iterator[int]:
        dataset = pygrain.MapDataset.source(paths).shuffle(seed=next(count)).map(load).to_iter_dataset(options).batch(BATCH)
        for batch in dataset:
            yield len(batch)

    return epoch


def torchdata(folder: Path, _shards: list[Shard], workers: int) -> Epoch:
    """torchdata's nodes with threads over the files of the tree."""
    from torchdata.nodes import Batcher, IterableWrapper, ParallelMapper, Prefetcher
    from torchdata.nodes import Loader as NodeLoader

    paths = sorted((folder / "tree").rglob("*.jpg"))
    order = [paths[i] for i in np.random.default_rng(0).permutation(len(paths))]
    mapped = ParallelMapper(
        IterableWrapper(order), lambda path: decoded_crop(path.read_bytes()), num_workers=workers, method="thread"
    )
    stacked = ParallelMapper(Batcher(mapped, BATCH, drop_last=False), torch.stack, num_workers=1, method="thread")
    loader = NodeLoader(Prefetcher(stacked, prefetch_factor=3))

    def epoch() -> Iterator[int]:
        for batch in loader:
            yield len(batch)

    return epoch


PEERS: dict[str, tuple[str, Maker]] = {
    "limit": ("JPEG decoding alone (libjpeg-turbo, bytes in memory)", decode_only),
    "ours": ("ours: uint8 256 images, which the device crops and flips", ours),
    "ours-on-gpu": ("ours: uint8 256 images, decoded by the CPU, in the GPU's memory", partial(on_gpu, encoded=False)),
    "nvjpeg": ("ours: uint8 256 images, decoded by nvJPEG in the GPU's memory", partial(on_gpu, encoded=True)),
    "imagefolder": ("torchvision ImageFolder, PIL, float, as people use it", partial(image_folder, views=_float_views)),
    "imagefolder-uint8": ("torchvision ImageFolder, PIL, uint8", partial(image_folder, views=_byte_views)),
    "webdataset": ("WebDataset, PIL, float, as its manual has it", partial(webdataset, fast=False)),
    "webdataset-fast": ("WebDataset, simplejpeg, uint8", partial(webdataset, fast=True)),
    "ffcv": ("FFCV, JPEG, uint8", ffcv),
    "dali": ("DALI, CPU pipeline, image_crop, uint8", dali),
    "litdata": ("LitData, simplejpeg, uint8", litdata),
    "grain": ("Grain, simplejpeg, uint8", grain),
    "torchdata": ("torchdata nodes, simplejpeg, uint8", torchdata),
}
