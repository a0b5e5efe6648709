"""Training a variant by the train stage's own program."""

from pathlib import Path

import pytest

from alexnet.errors import DataError
from alexnet.inference.pretrained import load_pretrained
from pipelines.evaluation import trained
from pipelines.runtime.environment import Store
from tests.support.trained_folder import make_trained_folder


@pytest.mark.slow
def test_a_training_that_fails_is_named_after_what_it_said(
    tmp_path: Path, fresh_store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = make_trained_folder(tmp_path, fresh_store, monkeypatch)
    with pytest.raises(DataError, match="evaluate.baselines: training no-such ended with status 1; above it says why"):
        trained.train("no-such", {"seed": 1}, [place.path("manifest.json"), place.path("pixels.npz")])
    assert "evaluate: no-such: train: error: variants: has no 'no-such'" in capsys.readouterr().out


@pytest.mark.slow
def test_torchvisions_net_is_trained_as_ours_is(tmp_path: Path, fresh_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the shipped start values and rates: without norms others overflowed within four steps."""
    place = make_trained_folder(tmp_path, fresh_store, monkeypatch)
    folder = trained.train("torchvision", {"seed": 1}, [place.path("manifest.json"), place.path("pixels.npz")])
    model = load_pretrained(folder)
    assert model.config.model.towers == 1
    assert not model.config.model.lrn.layers
    assert all(bool(weight.isfinite().all()) for weight in model.network.state_dict().values())
