"""What the tests of the card and the page share."""

from pathlib import Path

import pytest

from pipelines.config import params
from pipelines.publishing.card import Facts
from pipelines.publishing.provenance import Provenance
from pipelines.runtime.environment import TrainedOn
from tests.support import sample_shards
from tests.support.stage_folder import PARAMS
from tests.support.trained_folder import RESULTS, VALIDATION

PER_CLASS = "name,images,center_top1_error,five_top1_error\nclass 0,1,0.0,0.5\nclass 1,0,nan,nan\nclass 2,4,0.25,0.5\n"
DIGESTS = {"model.safetensors": "ab" * 32, "index.parquet": "cd" * 32, "story.html": "ef" * 32}
MISTAKES = "key,name,probability,predicted,predicted_probability\nk7,class 2,0.0012,class 0,0.9987\n"


@pytest.fixture
def facts() -> Facts:
    """Of a release with the shipped parameters and three classes."""
    manifest = sample_shards.make([3]).manifest()
    return Facts(
        "alexnet",
        params.load(PARAMS),
        manifest,
        RESULTS,
        VALIDATION,
        DIGESTS,
        Provenance(None, ()),
        TrainedOn("a | GPU", 2, "2.15"),
    )


@pytest.fixture
def release_folder(tmp_path: Path) -> Path:
    """The errors by class and the pictures, as they lie in a release."""
    for name in ("evaluation", "pictures"):
        (tmp_path / name).mkdir()
    (tmp_path / "evaluation/per_class.csv").write_text(PER_CLASS)
    (tmp_path / "evaluation/mistakes.csv").write_text(MISTAKES)
    for name in ("predictions", "confusion", "curves", "kernels"):
        (tmp_path / f"pictures/{name}.png").write_bytes(b"\x89PNG")
        (tmp_path / f"pictures/{name}.svg").write_bytes(b"<svg/>")
    return tmp_path
