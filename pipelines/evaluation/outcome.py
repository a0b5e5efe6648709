"""What the network predicted for every image of a split."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int64

from alexnet.inference import metrics as scores
from alexnet.inference.metrics import Best


@dataclass(frozen=True)
class Outcome:
    """What the network said of every image of the split, in the manifest's order."""

    keys: list[str]
    labels: Int64[np.ndarray, " n"]
    center_crop: Best
    ten_crop: Best

    def errors(self) -> dict[str, dict[str, float]]:
        """Top-1 and top-5 error by each protocol."""
        by = {"center_crop": self.center_crop, "ten_crop": self.ten_crop}
        return {protocol: scores.errors(best, self.labels) for protocol, best in by.items()}

    @cached_property
    def views(self) -> scores.Views:
        """The protocol that errs less."""
        return scores.better_views(self.errors())

    @property
    def better(self) -> Best:
        """The best classes by that protocol."""
        return self.center_crop if self.views == "center" else self.ten_crop
