"""References to released models, which the installed entry points `alexnet.releases` bring to this machine."""

import importlib.metadata
from pathlib import Path

from alexnet.errors import DataError

_GROUP = "alexnet.releases"  # functions: a reference to the folder of the release, every byte of it checked


def is_reference(model: str | Path) -> bool:
    """Whether it names a release, as `alexnet@latest` and s3://BUCKET/alexnet@latest do, and not a folder of this machine."""
    text = str(model)
    return text.startswith("s3://") or ("@" in text and not Path(model).exists())


def fetch(reference: str) -> Path:
    """The folder of a release, fetched and checked. Raises DataError if there is none, or nothing here can fetch it."""
    for point in importlib.metadata.entry_points(group=_GROUP):
        folder: Path = point.load()(reference)
        return folder
    raise DataError(
        f"{reference}: nothing that fetches releases is installed here; give a folder, or install the project again"
    )
