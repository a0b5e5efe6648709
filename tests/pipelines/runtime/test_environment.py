"""What the environment says of this machine, and what it must not say."""

import re
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from alexnet.errors import DataError
from pipelines.runtime import environment


@pytest.mark.parametrize(
    ("name", "text", "read", "value"),
    [
        ("ALEXNET_DEVICES", "cuda:0, cuda:1", environment.devices, ["cuda:0", "cuda:1"]),
        ("ALEXNET_DEVICES", "cuda,cuda:0", environment.devices, ["cuda:0", "cuda:0"]),
        ("ALEXNET_DEVICES", "cpu,cpu", environment.devices, ["cpu", "cpu"]),
        ("ALEXNET_PROCESSES", "1", environment.processes, 1),
        ("ALEXNET_TIMEOUT", "12.5", environment.timeout_seconds, 12.5),
        ("ALEXNET_RESTARTS", "0", environment.restarts, 0),
        ("ALEXNET_CHECKPOINT_MINUTES", "0.5", environment.checkpoint_seconds, 30.0),
        ("ALEXNET_WORKERS", "3", environment.workers, 3),
        ("ALEXNET_STREAMS", "4", environment.streams, 4),
        ("ALEXNET_PUBLISH", "no", environment.publishes, False),
    ],
)
def test_a_place_is_what_the_environment_says(
    name: str, text: str, read: Callable[[], object], value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv(name, text)
    assert read() == value


@pytest.mark.parametrize(
    ("name", "read", "value"),
    [
        ("ALEXNET_PROCESSES", environment.processes, None),
        ("ALEXNET_TIMEOUT", environment.timeout_seconds, 60.0),
        ("ALEXNET_RESTARTS", environment.restarts, 2),
        ("ALEXNET_STREAMS", environment.streams, 16),
        ("ALEXNET_CHECKPOINT_MINUTES", environment.checkpoint_seconds, 300.0),
    ],
)
def test_unset_it_has_a_default(name: str, read: Callable[[], object], value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(name, raising=False)
    assert read() == value


@pytest.mark.parametrize(
    ("name", "text", "read", "message"),
    [
        (
            "ALEXNET_DEVICES",
            "cpu,,cpu",
            environment.devices,
            "must name devices, such as cpu, cuda:0 or cuda:0,cuda:1, got 'cpu,,cpu'",
        ),
        ("ALEXNET_DEVICES", "gpu", environment.devices, "ALEXNET_DEVICES: must name devices"),
        ("ALEXNET_PROCESSES", "2", environment.processes, "ALEXNET_PROCESSES: must be 1 where it is set, got '2'"),
        ("ALEXNET_TIMEOUT", "nan", environment.timeout_seconds, "ALEXNET_TIMEOUT: must be a number of at least 10, got 'nan'"),
        ("ALEXNET_RESTARTS", "-1", environment.restarts, "ALEXNET_RESTARTS: must be a whole number of at least 0, got '-1'"),
        ("ALEXNET_CHECKPOINT_MINUTES", "soon", environment.checkpoint_seconds, "must be a number of at least 0, got 'soon'"),
        ("ALEXNET_WORKERS", "0", environment.workers, "ALEXNET_WORKERS: must be a whole number of at least 1, got '0'"),
        ("ALEXNET_STREAMS", "0", environment.streams, "ALEXNET_STREAMS: must be a whole number of at least 1, got '0'"),
    ],
)
def test_nonsense_is_refused_and_named(
    name: str, text: str, read: Callable[[], object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(DataError, match=message):
        read()


@pytest.mark.parametrize(("count", "there"), [(0, "no GPU"), (1, "cuda:0"), (2, "cuda:0 to cuda:1")])
def test_a_gpu_that_is_not_there_is_named(count: int, there: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setenv("ALEXNET_DEVICES", "cuda:0,cuda:2")
    with pytest.raises(DataError, match=f"names cuda:2, but torch sees {there}; name what is there, or cpu"):
        environment.devices()


def test_the_machine_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALEXNET_DEVICES", "cpu")
    monkeypatch.setenv("ALEXNET_WORKERS", "3")
    assert re.fullmatch(r".{5,}, 3 threads", environment.machine())


def test_ranks_take_devices_in_turn_and_know_whether_they_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("ALEXNET_DEVICES", "cuda:0,cuda:1")
    assert [environment.device_of_rank(rank, 2) for rank in (0, 1)] == [("cuda:0", False), ("cuda:1", False)]
    assert environment.device_of_rank(3, 4) == ("cuda:1", True)
    monkeypatch.setenv("ALEXNET_DEVICES", "cpu")
    assert environment.device_of_rank(1, 2) == ("cpu", False)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("s3://shards", "write shards, without"), ("shards/", "write shards,"), ("shards/team", "write shards,"),
        ("arn:aws:s3:::shards", "write shards,"), ("shards ", "write shards,"), ("ab", "it takes 3 characters"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("variable", ["ALEXNET_BUCKET", "ALEXNET_REGISTRY"])
def test_what_is_no_bucket_is_named_and_the_advice_cures_it(
    variable: str, name: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALEXNET_BUCKET", "data")
    monkeypatch.setenv(variable, name)
    with pytest.raises(DataError, match=f"{variable}: '{name}' is no bucket's name; {advice}"):
        environment.store()
    monkeypatch.setenv(variable, "shards")
    assert "shards" in (environment.store().bucket, environment.store().registry)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b"\xff\xfe{\0", b"[" * 20_000, b'{"bucket": 1}', None], ids=lambda body: str(body)[:12]
)
def test_damaged_notes_of_the_local_store_are_named(
    body: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = tmp_path / "places.json"
    places.mkdir() if body is None else places.write_bytes(body)
    monkeypatch.setattr(environment, "STACK", places)
    monkeypatch.delenv("ALEXNET_BUCKET", raising=False)
    with pytest.raises(DataError, match=r"places\.json.*; `make up` writes it again"):
        environment.store()


@pytest.mark.parametrize(
    ("name", "ask"),
    [
        ("ALEXNET_DEVICES", environment.devices),
        ("ALEXNET_PROCESSES", environment.processes),
        ("ALEXNET_WORKERS", environment.workers),
        ("ALEXNET_TIMEOUT", environment.timeout_seconds),
        ("ALEXNET_PUBLISH", environment.publishes),
        ("ALEXNET_LOG", environment.logs_json),
        ("ALEXNET_DASK", environment.dask),
    ],
)
def test_an_empty_variable_is_as_one_that_is_not_set(
    name: str, ask: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(name, raising=False)
    unset = ask()
    monkeypatch.setenv(name, "")
    assert ask() == unset


@pytest.mark.parametrize("text", ["\u0663", "1_0", "9" * 5000, "9" * 30, "1e308", "inf", "0x10", "1 0"])
def test_a_number_has_plain_digits_and_an_end(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, ask in (("ALEXNET_WORKERS", environment.workers), ("ALEXNET_TIMEOUT", environment.timeout_seconds)):
        monkeypatch.setenv(name, text)
        with pytest.raises(DataError, match=f"{name}: must be a .*number of at (least|most)") as refused:
            ask()
        assert len(str(refused.value)) < 400
    monkeypatch.setenv("ALEXNET_DEVICES", f"cuda:{text}")
    with pytest.raises(DataError, match="ALEXNET_DEVICES: must name devices"):
        environment.devices()


def test_an_endpoint_without_a_scheme_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALEXNET_BUCKET", "data")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "127.0.0.1:8333")
    with pytest.raises(DataError, match="AWS_ENDPOINT_URL: must start with http:// or https://, got '127.0.0.1:8333'"):
        environment.store()


def test_the_region_that_the_message_names_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.storage.bucket import data_bucket

    monkeypatch.setenv("ALEXNET_BUCKET", "data")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    assert data_bucket()._client.meta.region_name == "eu-central-1"


def test_loopback_is_reached_without_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "example.org")
    environment.reach_loopback_directly()
    assert urllib.request.proxy_bypass("127.0.0.1")
    assert urllib.request.proxy_bypass("localhost:8333")
    assert urllib.request.proxy_bypass("example.org")
    assert not urllib.request.proxy_bypass("s3.amazonaws.com")
