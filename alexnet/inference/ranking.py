"""The most probable classes, and where an image's own class stands among all, from probabilities on any device."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from alexnet.inference.metrics import TOP, LabelRanks, TopK

CLOSE = 0.03  # nats: bf16 may rank two classes the other way round; of 1,250 digits by any crops it did up to 0.019


def topk(probabilities: Float[Tensor, "n classes"], k: int = TOP) -> TopK:
    """The k most probable classes, or all if there are fewer."""
    return TopK(*(part.cpu().numpy() for part in _topk(probabilities, k)))


def summarize(probabilities: Float[Tensor, "n classes"], labels: Int64[Tensor, " n"]) -> tuple[Tensor, ...]:
    """What `from_tensors` makes into TopK and LabelRanks, on the probabilities' device, which is not waited for."""
    own = probabilities.gather(1, labels[:, None])
    return *_topk(probabilities, TOP), own[:, 0], (probabilities > own).sum(1), (probabilities == own).sum(1)


def from_tensors(parts: list[tuple[Tensor, ...]]) -> tuple[TopK, LabelRanks]:
    """Of all images of all parts, in order."""
    labels, probabilities, *ranks = (torch.cat(each).cpu().numpy() for each in zip(*parts, strict=True))
    return TopK(labels, probabilities), LabelRanks(*ranks)


def gaps(probabilities: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
    """By how many nats the best class leads, or the best five where that is less, on the probabilities' device.

    That is the log probability of the first class less that of the second, or of the fifth less that of the sixth.
    """
    best = probabilities.topk(min(TOP + 1, probabilities.shape[1])).values.clamp(min=torch.finfo(torch.float32).tiny).log()
    return (best[:, :-1] - best[:, 1:])[:, :: TOP - 1].amin(1)


def _topk(probabilities: Tensor, k: int) -> tuple[Tensor, Tensor]:
    found = probabilities.sort(dim=1, descending=True, stable=True)
    return found.indices[:, :k], found.values[:, :k]
