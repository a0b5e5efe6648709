"""The folder of the model that a command names."""

import os
from pathlib import Path

from alexnet.inference.references import is_reference


def model_folder(model: str, offline: bool) -> Path:
    """The folder itself, or that of a release, which is pulled if need be. Either is signed by ALEXNET_VERIFY_KEY, if set."""
    if not is_reference(model):
        if os.environ.get("ALEXNET_VERIFY_KEY"):
            from pipelines.registry.client import fetch

            return fetch(model)
        return Path(model)
    from pipelines.registry.client import client_of  # with what reads stores and checks signatures: half a second

    client, reference = client_of(model, offline)
    return client.pull(reference)[1]
