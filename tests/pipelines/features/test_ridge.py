"""Ridge regression by batches against scikit-learn's on everything at once."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipelines.features.ridge import Ridge


@pytest.mark.parametrize("standardize", [False, True])
def test_ridge_regression_by_batches_is_scikit_learns(standardize: bool) -> None:
    drawn = np.random.default_rng(1)
    x, labels = drawn.random((120, 12)) * np.arange(1, 13) + 5, drawn.integers(0, 4, 120)
    x[:, :4] += labels[:, None] == np.arange(4)
    x[:, 11] = 3.7  # a dead unit
    ridge = Ridge(12, 4)
    for start in range(0, 100, 30):
        stop = min(start + 30, 100)
        ridge.add(torch.from_numpy(x[start:stop]), torch.from_numpy(labels[start:stop]))
    twin = RidgeClassifier(alpha=2.0)
    if standardize:
        twin = make_pipeline(StandardScaler(), twin)
    weights, intercepts = ridge.fit(2.0, standardize=standardize)
    found = torch.from_numpy(x) @ weights + intercepts
    assert np.allclose(found, twin.fit(x[:100], labels[:100]).decision_function(x))
