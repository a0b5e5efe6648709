"""A task that a tiny network learns in a few steps: images of bars in memory."""

from collections.abc import Iterator

import numpy as np
import torch

from alexnet.images.statistics import PixelStatistics
from alexnet.loading.loader import Batch
from alexnet.model.architecture import ModelConfig
from alexnet.model.network import AlexNet
from alexnet.randomness.keys import permutation, random_key
from alexnet.training.schedule import TrainConfig
from alexnet.training.trainer import Trainer, TrainingJob


class Bars:
    """Batches of images in memory: bars whose place is the class."""

    def __init__(self, count: int, batch_size: int) -> None:
        self.batch_size = batch_size
        self.labels = torch.arange(count) % 4
        self.images = torch.randint(0, 60, (count, 256, 256, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
        for image, label in zip(self.images, self.labels.tolist(), strict=True):
            image[:, 50 * label + 30 : 50 * label + 60] += 180

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        order = torch.from_numpy(permutation(random_key(1, "order", epoch), len(self.labels)))
        for start in range(first_step * self.batch_size, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            yield Batch(self.images[rows], self.labels[rows], rows)


def trainer(
    model: ModelConfig, recipe: TrainConfig, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Trainer:
    pixels = PixelStatistics(
        mean_image=np.full((256, 256, 3), 50.0, np.float32),
        channel_mean=np.full(3, 50.0),
        channel_std=np.full(3, 60.0),
        eigenvectors=np.eye(3),
        eigen_std=np.array([5.0, 10.0, 50.0]),
        images=24,
    )
    network = AlexNet(model).to(device, dtype).to(memory_format=torch.channels_last)
    return Trainer(TrainingJob(1, model, recipe, "memory"), network, pixels, torch.device(device))
