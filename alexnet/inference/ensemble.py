"""Several trained networks as one: their class probabilities averaged, as the paper's five and seven (table 2)."""

from dataclasses import dataclass, replace
from math import inf

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from alexnet.inference.pretrained import Pretrained
from alexnet.loading.config import Precision, Views


@dataclass(frozen=True)
class Ensemble:
    """Networks of the same classes on one device. weights: of each in the average, any positive numbers; none: equal ones."""

    members: tuple[Pretrained, ...]
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.members:
            raise ValueError("members: must be at least one network")
        check_weights(self.weights, len(self.members))

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.members[0].device

    def at(self, precision: Precision) -> "Ensemble":
        """The same with every network in this precision, see `Pretrained.at`."""
        return replace(self, members=tuple(member.at(precision) for member in self.members))

    def by_crop(self, images: UInt8[Tensor, "n side side 3"], views: Views) -> Float[Tensor, "crops n classes"]:
        """Class probabilities by every crop of a protocol; the mean over crops of these is the mean over networks and crops."""
        stacked = torch.stack([member.by_crop(images, views) for member in self.members])
        if not self.weights:
            return stacked.mean(0)
        shares = torch.tensor(self.weights, dtype=stacked.dtype, device=self.device) / sum(self.weights)
        return torch.einsum("m,mcnk->cnk", shares, stacked)


def check_weights(weights: tuple[float, ...], members: int) -> None:
    """Raises ValueError unless there are none, or a positive finite one for each of so many networks."""
    if weights and (len(weights) != members or not all(0 < weight < inf for weight in weights)):
        raise ValueError(f"weights: must be none, or {members} numbers above 0, got {', '.join(map(str, weights))}")
