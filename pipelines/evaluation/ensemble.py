"""Trained networks and released ones, evaluated as one: their probabilities averaged."""

from collections.abc import Sequence
from pathlib import Path

from alexnet.errors import ParamsError
from alexnet.inference.ensemble import Ensemble
from alexnet.shards.manifest import Manifest
from pipelines.evaluation import inference
from pipelines.registry.client import client_of


def open_ensemble(folders: Sequence[Path], weights: Sequence[float], manifest: Manifest) -> Ensemble:
    """The networks in these folders.

    Raises:
        DataError: one of them is no network of the manifest's classes and images.
        ParamsError: the weights do not fit.
    """
    members = tuple(inference.open_model(folder, manifest) for folder in folders)
    try:
        return Ensemble(members, tuple(weights))
    except ValueError as error:
        raise ParamsError(f"ensemble.{error}") from None


def pull(reference: str) -> Path:
    """The folder of a released model, fetched if need be."""
    client, name = client_of(reference)
    return client.pull(name)[1]
