"""What an error says to do is done here, word by word, and cures the case."""

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from alexnet.errors import DataError
from pipelines.runtime import environment
from pipelines.sources.base import SourceConfig
from pipelines.sources.open import open_source

CLASSES = ("cat", "dog")


def make(root: Path, *folders: str, classes: Iterable[str] = CLASSES) -> None:
    """Two files of every class in the folders; a folder that ends in a slash stays empty. Fetch decodes none."""
    for folder in folders:
        for name in classes if not folder.endswith("/") else ():
            (root / folder / name).mkdir(parents=True)
            for number in range(2):
                (root / folder / name / f"{number}.jpg").write_bytes(b"x")
        (root / folder).mkdir(parents=True, exist_ok=True)


def follow(message: str, config: SourceConfig, monkeypatch: pytest.MonkeyPatch, what: str) -> SourceConfig:
    """The configuration, or the environment, as the message says; `what` picks one of two remedies."""
    if what == "ALEXNET_SOURCE":
        place = re.search(r"set ALEXNET_SOURCE to (?:it: |one of them: )?(/\S+)", message)
        assert place, message
        monkeypatch.setenv("ALEXNET_SOURCE", place[1])
        return config
    if what == "source.splits":
        tree = re.search(r"set (?:source\.splits|it) to (\{[^}]*\})", message)
        assert tree, message
        return replace(config, splits=YAML(typ="safe").load(tree[1]))
    names = re.search(r"source\.ignore to \[([^]]*)\]", message)
    named = re.search(r"(\S+)/ and |no images in class (?:\w+/)?(\w+)", message)
    assert names or (named and "source.ignore" in message), message
    return replace(config, ignore=(names[1] if names else named[1] or named[2],))  # type: ignore[index]


@pytest.mark.parametrize(
    ("given", "remedy", "found"),
    [
        (lambda root: make(root, "train", "eval"), "source.splits", "eval/ (val, 4)"),
        (lambda root: make(root, "train", "Evaluation"), "source.splits", "Evaluation/ (val, 4)"),
        (lambda root: make(root, "photos/train", "photos/val"), "ALEXNET_SOURCE", "val/ (val, 4)"),
        (lambda root: make(root, "v1/train", "v1/val", "v2/train", "v2/val"), "ALEXNET_SOURCE", "train/ (train, 4)"),
        (lambda root: make(root, "fold1", "fold2"), "source.splits", "8 images of 2 classes; CLASS/.../IMAGE"),
        (lambda root: make(root, "train", "val-small"), "source.splits", "val-small/ (val, 4)"),
        (lambda root: make(root, "a/b/data"), "ALEXNET_SOURCE", "4 images of 2 classes; CLASS/IMAGE"),
        (lambda root: make(root, "data"), "ALEXNET_SOURCE", "4 images of 2 classes; CLASS/IMAGE"),
        (lambda root: make(root, "train", "val", "valid"), "source.splits", "valid/ (val, 4)"),
        (lambda root: make(root, "train", "val", "valid"), "source.ignore", "valid/ (val, 4)"),
        (lambda root: make(root, "train", "training", "val"), "source.splits", "val/ (val, 4)"),
        (lambda root: make(root, "train", "training", "val"), "source.ignore", "val/ (val, 4)"),
        (lambda root: make(root, "train", "test", "test_set"), "source.splits", "test_set/ (test, 4)"),
        (lambda root: make(root, "train", "val/"), "source.ignore", "4 images of 2 classes in train/"),
        (lambda root: make(root, "train", "val", "train_old"), "source.ignore", "val/ (val, 4)"),
        (lambda root: make(root, "train", "extra"), "source.splits", "extra/ (val, 4)"),
        (lambda root: make(root, "train", "extra"), "source.ignore", "train/ (train, 4)"),
        (lambda root: make(root, "", classes=("train", "test")), "source.splits", "4 images of 2 classes"),
        (lambda root: make(root, "", "notes/"), "source.ignore", "4 images of 2 classes"),
        (lambda root: make(root, "train", "val", "train/new/"), "source.ignore", "val/ (val, 4)"),
    ],
)
def test_a_source_is_read_as_the_error_says(
    given: Callable[[Path], None], remedy: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(tmp_path)
    monkeypatch.setenv("ALEXNET_SOURCE", str(tmp_path))
    config = SourceConfig("folder", 0.25, ())
    with pytest.raises(DataError) as refused:
        open_source(config).layout()
    config = follow(str(refused.value), config, monkeypatch, remedy)
    assert found in open_source(config).layout()


@pytest.mark.parametrize(
    ("variable", "given"),
    [
        ("ALEXNET_BUCKET", "s3://my-bucket"),
        ("ALEXNET_BUCKET", "my-bucket/"),
        ("ALEXNET_BUCKET", "my-bucket/team"),
        ("ALEXNET_BUCKET", "arn:aws:s3:::my-bucket"),
        ("ALEXNET_BUCKET", "my-bucket "),
        ("ALEXNET_BUCKET", "my-bucket\nmy-other"),
        ("ALEXNET_REGISTRY", "s3://my-registry/"),
    ],
)
def test_a_bucket_is_named_as_the_error_says(variable: str, given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALEXNET_BUCKET", "data-bucket")
    monkeypatch.setenv(variable, given)
    with pytest.raises(DataError) as refused:
        environment.store()
    name = re.search(r"write (\S+),", str(refused.value))
    assert name
    monkeypatch.setenv(variable, name[1])
    assert name[1] in (environment.store().bucket, environment.store().registry)


@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"])
@pytest.mark.parametrize("given", ["%s\n", " %s", "%s\r", "\x1b%s", "%s\t"])
def test_a_line_break_is_taken_out_of_a_variable_as_the_error_says(
    variable: str, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a secret has that was pasted, or came of a file; it is not shown."""
    monkeypatch.setenv("ALEXNET_BUCKET", "data-bucket")
    monkeypatch.setenv(variable, given % "http://secret")
    with pytest.raises(DataError, match=f"{variable}: has a line break.*; take it out") as refused:
        environment.store()
    assert "secret" not in str(refused.value)
    monkeypatch.setenv(variable, (given % "http://secret").strip().strip("\x1b"))
    environment.store()


@pytest.mark.parametrize(
    ("variable", "given", "ask"),
    [
        ("AWS_ENDPOINT_URL", "127.0.0.1:9", environment.store),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:99999", environment.store),
        ("AWS_ENDPOINT_URL", "http://[::1", environment.store),
        ("AWS_ENDPOINT_URL", "http://my store", environment.store),
        ("AWS_REGION", "eu west 1", environment.store),
        ("AWS_DEFAULT_REGION", "us_east_1", environment.store),
        ("ALEXNET_WORKERS", "9" * 30, environment.workers),
        ("ALEXNET_PUBLISH", "true", environment.publishes),
        ("ALEXNET_LOG", "JSON", environment.logs_json),
        ("ALEXNET_DASK", "10.0.0.1:8786", environment.dask),
        ("ALEXNET_PROCESSES", "2", environment.processes),
        ("ALEXNET_DEVICES", "gpu0", environment.devices),
        ("ALEXNET_DEVICES", "cuda:99", environment.devices),
        ("ALEXNET_TIMEOUT", "nan", environment.timeout_seconds),
        ("ALEXNET_RESTARTS", "-1", environment.restarts),
        ("ALEXNET_WORKERS", "0", environment.workers),
        ("ALEXNET_STREAMS", "many", environment.streams),
        ("ALEXNET_STORE_MINUTES", "-1", environment.store_seconds),
    ],
)
def test_a_variable_takes_what_its_error_says(
    variable: str, given: str, ask: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALEXNET_BUCKET", "data-bucket")
    monkeypatch.setenv(variable, given)
    with pytest.raises(DataError, match=variable) as refused:
        ask()
    said = str(refused.value)
    plain = (
        r"must start with (http://)|must be (yes|text|1)\b|such as ([a-z]+://[\w.:]+|cpu|us-east-1)|"
        r"what is there, or (cpu)|at (?:least|most) (\d+)"
    )
    allowed = re.search(plain, said)
    assert allowed, said
    value = next(filter(None, allowed.groups()))
    monkeypatch.setenv(variable, f"{value}{given}" if value == "http://" else value)
    ask()
