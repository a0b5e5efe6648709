"""What the tests of an evaluation share."""

import numpy as np
import pytest
import torch

from alexnet.inference.ranking import from_tensors, summarize
from alexnet.shards.manifest import Synset
from pipelines.evaluation.predictions import Predictions

SYNSETS = tuple(Synset(label, f"n{label}", f"class {label}") for label in range(3))


@pytest.fixture
def predictions() -> Predictions:
    """Of four images of two of three classes: the first and the last wrong by the center crop, all right by five crops."""
    labels = np.array([0, 0, 1, 1])
    center = torch.tensor([[0.3, 0.1, 0.6], [0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.9, 0.1, 0.0]])
    five = torch.eye(3)[labels]
    both = {
        views: from_tensors([summarize(each, torch.from_numpy(labels))]) for views, each in (("center", center), ("five", five))
    }
    tops, ranks = ({views: pair[at] for views, pair in both.items()} for at in (0, 1))
    return Predictions(["a", "b", "c", "d"], labels, tops, ranks)  # type: ignore[arg-type]  # a pair of dictionaries
