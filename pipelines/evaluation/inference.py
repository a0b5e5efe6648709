"""What the stages that run a trained network share: the network on its device, and a split's batches with their keys."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from alexnet.errors import DataError
from alexnet.inference.pretrained import Pretrained, load_pretrained
from alexnet.loading.dataset import ShardDataset
from alexnet.loading.device import to_device
from alexnet.loading.loader import Batch, Loader
from alexnet.loading.sampler import BatchSampler, Order
from alexnet.ops.malloc import disable_malloc_trim
from alexnet.shards.manifest import Manifest, Split
from pipelines.runtime import console, environment

_CPU = torch.device("cpu")
_OPEN_SHARDS = 2  # that stay mapped where they are read in order: what is read of them counts as this process's memory


def open_model(path: Path, manifest: Manifest) -> Pretrained:
    """The network on its device. Raises DataError unless its classes and the size of its images are the manifest's."""
    model = load_pretrained(path)
    synsets, side_px = model.config.synsets, model.config.preprocessing.side_px
    if synsets != manifest.synsets or side_px != manifest.side_px:
        raise DataError(
            f"{path}: knows {len(synsets)} classes in images of {side_px} px, the manifest has "
            f"{len(manifest.synsets)} in {manifest.side_px} px, or others of the same number; train on these shards"
        )
    torch.set_num_threads(environment.workers())
    disable_malloc_trim()
    return model.to(torch.device(environment.devices()[0]))


def report_split(manifest: Manifest) -> Split:
    """The split that results are reported on: test where there is one, for training and its schedule look at validation."""
    return "test" if "test" in manifest.splits else "val"


def load_batches(
    samples: ShardDataset, batch_size: int, label: str, device: torch.device = _CPU, first_batch: int = 0
) -> Iterator[Batch]:
    """All samples in the manifest's order from a batch on, on the device, with progress shown by images."""
    return load_chosen(samples, np.arange(first_batch * batch_size, len(samples)), batch_size, label, device)


def load_chosen(samples: ShardDataset, chosen: Order, batch_size: int, label: str, device: torch.device) -> Iterator[Batch]:
    """The same of samples that are chosen by their global indices, in this order."""
    samples.most_open = min(samples.most_open, _OPEN_SHARDS)
    sampler = BatchSampler(batch_size, seed=0, shuffle=False)
    loader = Loader(samples, sampler, workers=environment.workers(), pin_memory=device.type == "cuda")
    batches = loader.read([chosen[start : start + batch_size] for start in range(0, len(chosen), batch_size)])
    return console.track(to_device(batches, device), len(chosen), label, size=lambda batch: len(batch.labels))


def sample_keys(samples: ShardDataset, batch: Batch) -> list[str]:
    """The keys of a batch's images; only the shards that it was read from are open."""
    numbers, rows = samples.shards_and_rows(batch.samples.numpy())
    return [samples.open(number).index.keys[row] for number, row in zip(numbers, rows, strict=True)]
