"""What a run is asked for beyond params.yaml and the worker's environment: a run's typed parameters, and how DVC gets them."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

PARAMS = Path("params.yaml")
_OWN = Path(".local/params.yaml")  # the checkout's own params.yaml while a run has laid its settings over it

Source = Literal["digits", "solar-cells", "imagenette", "folder", "imagenet", "webdataset"]


class RunSettings(BaseModel):
    """A run's settings. What is not given comes from the checkout's params.yaml and the worker's environment."""

    model_config = ConfigDict(extra="forbid")

    source: Source | None = Field(default=None, description="Name of the source of the images.")
    source_place: str | None = Field(
        default=None,
        description="Where the sources folder, imagenet, imagenette and webdataset are: a path on the worker, or s3://BUCKET/PREFIX.",
    )
    preset: str | None = Field(
        default=None, description="A preset, such as imagenet, whose values the run uses, as after `alexnet use PRESET`."
    )
    variant: str | None = Field(default=None, description="An ablation under `variants` in params.yaml, such as no-lrn.")
    overrides: list[str] = Field(
        default=[], description="Other values of parameters, written as for `dvc exp run -S`: train.epochs=3"
    )
    devices: str | None = Field(default=None, description="A device for every process: cpu, cuda:0 or cuda:0,cuda:1.")
    publish: bool | None = Field(default=None, description="Whether the run ends with a release.")

    def variables(self) -> dict[str, str]:
        """The environment variables of the stages."""
        publish = None if self.publish is None else "yes" if self.publish else "no"
        given = {"ALEXNET_SOURCE": self.source_place, "ALEXNET_DEVICES": self.devices, "ALEXNET_PUBLISH": publish}
        return {name: value for name, value in given.items() if value is not None}

    def changes_params(self) -> bool:
        """Whether params.yaml is another during the run."""
        return bool(self.source or self.preset or self.variant or self.overrides)


@contextlib.contextmanager
def laid_over_params(settings: RunSettings) -> Iterator[None]:
    """Changes params.yaml for the block: DVC compares it with dvc.lock, and takes no numbers from anywhere else.

    A run that was killed within the block leaves its params.yaml; the next one puts back the checkout's own first.

    Raises:
        ValueError: no such preset or variant, or an override names a key that params.yaml does not have.
    """
    if _OWN.exists():
        _OWN.replace(PARAMS)
    if not settings.changes_params():
        yield
        return
    _OWN.parent.mkdir(exist_ok=True)
    part = _OWN.with_name(f".params.{os.getpid()}")
    part.write_bytes(PARAMS.read_bytes())
    part.replace(_OWN)
    try:
        _lay_over(settings)
        yield
    finally:
        _OWN.replace(PARAMS)


def _lay_over(settings: RunSettings) -> None:
    if settings.preset:
        command = [sys.executable, "-m", "pipelines.cli.main", "use", settings.preset]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ValueError(done.stderr.strip().removeprefix("error: "))
    overrides = [f"source.name={settings.source}"] if settings.source else []
    if settings.variant:
        variants = yaml.safe_load(PARAMS.read_text(encoding="utf-8")).get("variants") or {}
        if settings.variant not in variants:
            raise ValueError(f"{PARAMS}: has no variant {settings.variant!r}; it has {', '.join(variants) or 'none'}")
        overrides += [f"{path}={_override(value)}" for path, value in _leaves(variants[settings.variant])]
    overrides += settings.overrides
    if overrides:
        from dvc.exceptions import InvalidArgumentError
        from dvc.utils.hydra import apply_overrides

        try:
            apply_overrides(str(PARAMS), overrides)
        except InvalidArgumentError as error:
            raise ValueError(f"overrides: {error.__cause__ or error}; `dvc exp run -S` has the same form") from None


def _leaves(tree: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a tree by their paths; a list is a leaf."""
    for key, value in tree.items():
        under = f"{path}.{key}" if path else key
        if isinstance(value, dict) and value:
            yield from _leaves(value, under)
        else:
            yield under, value


def _override(value: Any) -> str:
    """A value in the grammar of overrides: JSON, but the keys of a mapping are not quoted."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_override(each)}" for key, each in value.items()) + "}"
    return "[" + ",".join(map(_override, value)) + "]" if isinstance(value, list) else json.dumps(value)
