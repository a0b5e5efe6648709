"""Ridge regression onto the classes' indicators, a batch at a time, on any device."""

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor


class Ridge:
    """scikit-learn's RidgeClassifier with an intercept, also after its StandardScaler, fitted to sums over batches.

    Memory does not grow with the number of images, and on a GPU nothing waits for it.

    Args:
        numbers: that describe an image.
        classes: of images.
        device: where the batches are.
    """

    def __init__(self, numbers: int, classes: int, device: torch.device | None = None) -> None:
        self._count = 0
        zeros = torch.zeros(numbers + classes + 1, numbers + classes + 1, dtype=torch.float64, device=device)
        self._sums, self._numbers = zeros, numbers  # of products: of the numbers, the indicators and 1, with each other

    def add(self, x: Float[Tensor, "n numbers"], labels: Int64[Tensor, " n"]) -> None:
        """Adds training images."""
        classes = len(self._sums) - self._numbers - 1
        indicators = torch.where(labels[:, None] == torch.arange(classes, device=labels.device), 1.0, -1.0)
        row = torch.cat([x, indicators, torch.ones_like(indicators[:, :1])], 1).double()
        self._sums.addmm_(row.T, row)
        self._count += len(x)

    def fit(
        self, alpha: float, *, standardize: bool = False
    ) -> tuple[Float64[Tensor, "numbers classes"], Float64[Tensor, " classes"]]:
        """The weights and intercepts for the images added so far: a class's score is x @ weights + intercept.

        Args:
            alpha: the factor of the squared weights that is added to the squared error.
            standardize: of numbers with mean 0 and variance 1. The weights are for the numbers as they were added.
        """
        d = self._numbers
        mean = self._sums[-1, :-1] / self._count
        centered = self._sums[:d, :-1] - self._count * mean[:d, None] * mean
        variance = centered.diagonal() / self._count
        scale = (
            torch.where(variance > 1e-12 * mean[:d] ** 2, variance, 1.0).sqrt() if standardize else torch.ones_like(variance)
        )
        covariance = centered[:, :d] / scale / scale[:, None]
        covariance.diagonal().add_(alpha)
        weights = torch.linalg.solve(covariance, centered[:, d:] / scale[:, None]) / scale[:, None]
        return weights, mean[d:] - mean[:d] @ weights
