"""How many images a second a network predicts on this machine."""

import statistics
import time
from collections.abc import Sequence

from jaxtyping import UInt8
from torch import Tensor

from alexnet.inference.ensemble import Ensemble
from alexnet.inference.pretrained import Pretrained
from alexnet.loading.augment import CROPS_OF
from alexnet.loading.config import Views

_PASSES = 5


def measure(
    model: Pretrained | Ensemble, images: UInt8[Tensor, "n side side 3"], protocols: Sequence[Views], crops: int
) -> dict[Views, float]:
    """Images per second by every protocol: the median of five forward passes, of at most so many crops, after one more."""
    rates = {}
    for views in protocols:
        batch = images[: max(1, crops // len(range(10)[CROPS_OF[views]]))]
        seconds = []
        for _ in range(1 + _PASSES):
            start = time.perf_counter()
            model.by_crop(batch, views).cpu()  # waits for a GPU
            seconds.append(time.perf_counter() - start)
        rates[views] = len(batch) / statistics.median(seconds[1:])
    return rates
