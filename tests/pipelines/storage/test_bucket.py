"""The bucket through a proxy that misbehaves, before a real store."""

import dataclasses
import logging
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import pipelines.storage.bucket
from alexnet.errors import DataError
from pipelines.runtime.environment import Store
from pipelines.runtime.errors import Exists, Missing, Unreachable
from pipelines.storage.bucket import Bucket, bucket_at, data_bucket
from tests.support.fault_proxy import Fault, FaultProxy, Request

pytestmark = pytest.mark.usefixtures("no_pauses")

BODY = bytes(range(256)) * 8192  # 2 MiB


@pytest.fixture
def far(fresh_store: Store, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """The same bucket as `bucket`, through the proxy, with a short timeout."""
    monkeypatch.setattr(pipelines.storage.bucket, "_TIMEOUT_SECONDS", 1.0)
    return Bucket(fresh_store.bucket, dataclasses.replace(fresh_store, endpoint=proxy.endpoint))


def first(fault: Fault, method: str, times: int = 1) -> Callable[[Request], Fault | None]:
    return lambda request: fault if request.method == method and request.number < times else None


def test_what_is_written_is_read_back_whole_and_in_ranges(bucket: Bucket) -> None:
    bucket.put("folder/key", BODY)
    assert bucket.get("folder/key") == BODY
    assert b"".join(bucket.stream("folder/key", 1_000_000)) == BODY[1_000_000:]
    assert bucket.get_range("folder/key", 5, 300) == BODY[5:305]
    assert bucket.get_range("folder/key", 5, 0) == b""
    assert bucket.sizes("folder/") == {"folder/key": len(BODY)}
    bucket.delete("folder/key")
    bucket.delete("folder/key")
    with pytest.raises(Missing, match=r"s3://.*/folder/key: no such object"):
        bucket.get("folder/key")


def test_an_empty_object_is_read_as_empty(bucket: Bucket) -> None:
    bucket.put("empty", b"")
    assert bucket.get("empty") == b""
    assert list(bucket.stream("empty")) == []


def test_a_range_beyond_the_end_is_an_error_that_gives_both_sizes(bucket: Bucket) -> None:
    bucket.put("key", b"abc")
    with pytest.raises(DataError, match="has 2 bytes from byte 1 on, 5 were expected"):
        bucket.get_range("key", 1, 5)


@pytest.mark.parametrize("how", ["close", "reset", "stall"])
def test_a_body_that_breaks_off_is_resumed_where_it_broke(bucket: Bucket, far: Bucket, proxy: FaultProxy, how: str) -> None:
    bucket.put("key", BODY)
    proxy.faults = first(Fault(cut_at=700_001, how=how), "GET", times=2)  # type: ignore[arg-type]
    assert b"".join(far.stream("key")) == BODY
    assert proxy.count("GET") == 3


def test_a_small_object_is_read_again_when_its_body_breaks_off(bucket: Bucket, far: Bucket, proxy: FaultProxy) -> None:
    bucket.put("key", b"x" * 1000)
    proxy.faults = first(Fault(cut_at=10), "GET", times=2)
    assert far.get("key") == b"x" * 1000


def test_a_slow_link_is_waited_for(bucket: Bucket, far: Bucket, proxy: FaultProxy) -> None:
    bucket.put("key", BODY[:300_000])
    proxy.faults = first(Fault(bytes_per_second=200_000), "GET")
    assert b"".join(far.stream("key")) == BODY[:300_000]  # 1.5 s, longer than a silence may last
    assert proxy.count("GET") == 1


def test_a_link_that_only_trickles_is_given_up(
    bucket: Bucket, far: Bucket, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelines.storage.bucket, "_RESUMES", 1)
    bucket.put("key", BODY[:3000])
    proxy.faults = first(Fault(bytes_per_second=400), "GET", times=99)
    with pytest.raises(Unreachable, match=r"broke off 2 times at byte .*: only \d+ bytes arrived in 1 s; check the link"):
        list(far.stream("key"))


def test_a_link_that_trickles_once_is_left_for_another(bucket: Bucket, far: Bucket, proxy: FaultProxy) -> None:
    bucket.put("key", BODY[:3000])
    proxy.faults = first(Fault(bytes_per_second=400), "GET")
    assert b"".join(far.stream("key")) == BODY[:3000]
    assert proxy.count("GET") == 2


def test_any_number_of_reads_at_once_keep_their_connections(
    bucket: Bucket, fresh_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    bucket.put("key", BODY)
    shared = bucket_at(fresh_store.bucket, fresh_store)
    assert shared is bucket_at(fresh_store.bucket, fresh_store)
    reads = [shared.stream("key") for _ in range(40)]
    starts = [next(read) for read in reads]
    assert all(start + b"".join(read) == BODY for start, read in zip(starts, reads, strict=True))
    assert "discarding connection" not in caplog.text  # urllib3 warns of it


def test_a_place_names_the_store_without_credentials(fresh_store: Store) -> None:
    at = dataclasses.replace(fresh_store, endpoint="http://user:CANARY@10.0.0.1:9000")
    assert Bucket("data", at).place == "s3://data at http://10.0.0.1:9000"


def test_an_object_replaced_while_it_is_read_is_never_two_halves(bucket: Bucket, far: Bucket, proxy: FaultProxy) -> None:
    bucket.put("key", BODY)
    proxy.faults = first(Fault(cut_at=700_001), "GET")
    chunks = far.stream("key")
    next(chunks)
    bucket.put("key", BODY[::-1])
    with pytest.raises(Unreachable, match="was replaced while it was read, at byte"):
        list(chunks)


def test_a_body_that_never_comes_ends_with_a_named_error(
    bucket: Bucket, far: Bucket, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put("key", BODY)
    monkeypatch.setattr(pipelines.storage.bucket, "_RESUMES", 2)
    proxy.faults = first(Fault(cut_at=0), "GET", times=99)
    with pytest.raises(Unreachable, match="broke off 3 times at byte 0 of 2,097,152"):
        list(far.stream("key"))


def test_a_flipped_bit_in_a_small_object_is_noticed(bucket: Bucket, far: Bucket, proxy: FaultProxy) -> None:
    bucket.put("key", b"x" * 1000)
    proxy.faults = first(Fault(flip_at=12), "GET")
    assert far.get("key") == b"x" * 1000
    proxy.faults = first(Fault(flip_at=12), "GET", times=99)
    with pytest.raises(DataError, match="differs from the store's checksum, fetched 5 times; the object is damaged"):
        far.get("key")


@pytest.mark.parametrize(("status", "code"), [(503, "SlowDown"), (500, "InternalError"), (429, "TooManyRequests")])
def test_a_store_that_fails_now_and_then_is_asked_again(
    bucket: Bucket, far: Bucket, proxy: FaultProxy, status: int, code: str
) -> None:
    proxy.faults = first(Fault(status=status, code=code), "PUT", times=2)
    if status == 429:  # botocore knows throttling by its code
        proxy.faults = first(Fault(status=status, code="ThrottlingException"), "PUT", times=2)
    far.put("key", b"body")
    assert bucket.get("key") == b"body"


def test_a_store_that_keeps_failing_is_unreachable_after_five_attempts(far: Bucket, proxy: FaultProxy) -> None:
    proxy.faults = first(Fault(status=503, code="SlowDown"), "PUT", times=99)
    with pytest.raises(Unreachable, match="PutObject failed: SlowDown, 5 times; see the store's log and run again"):
        far.put("key", b"body")
    assert proxy.count("PUT") == 5


def test_a_store_that_has_answered_is_waited_for_and_named(
    bucket: Bucket, far: Bucket, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ALEXNET_STORE_MINUTES", "1")
    bucket.put("key", b"body")
    far.check()
    proxy.faults = first(Fault(status=503, code="ServiceUnavailable"), "GET", times=12)
    assert far.get("key") == b"body"
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()  # of three waits: one in fifteen seconds
    assert line.startswith(f"waits for {far.place}, for ")
    assert " s so far and at most 1 min: s3://" in line
    assert "ServiceUnavailable" in line


@pytest.mark.parametrize("size", [len(BODY), 1000])
def test_a_body_that_breaks_off_again_and_again_is_waited_for_too(
    bucket: Bucket,
    far: Bucket,
    proxy: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    size: int,
) -> None:
    monkeypatch.setenv("ALEXNET_STORE_MINUTES", "1")
    bucket.put("key", BODY[:size])
    proxy.faults = first(Fault(cut_at=10, how="reset"), "GET", times=12)
    assert b"".join(far.stream("key")) == BODY[:size]
    assert proxy.count("GET") == 13
    assert "the body broke off 6 times at byte " in capsys.readouterr().err
    proxy.faults = lambda request: Fault(cut_at=10, how="reset") if request.number < 25 else None
    assert far.get("key") == BODY[:size]


def test_the_wait_for_a_store_ends(far: Bucket, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALEXNET_STORE_MINUTES", "0.005")
    far.check()
    proxy.close()
    began = time.monotonic()
    with pytest.raises(Unreachable, match="make up"):
        far.get("key")
    assert time.monotonic() - began >= 0.3


def test_a_store_that_never_answers_is_given_five_timeouts(
    far: Bucket, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the wait would be long: it is for a store that has answered before."""
    monkeypatch.setenv("ALEXNET_STORE_MINUTES", "60")
    monkeypatch.setattr(pipelines.storage.bucket, "_TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts and says nothing
        at = dataclasses.replace(far._at, endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(Unreachable, match="Read timeout"):
            Bucket(far.name, at).put("key", b"body")


def test_a_store_that_is_not_there_is_unreachable(fresh_store: Store, proxy: FaultProxy) -> None:
    proxy.close()
    gone = dataclasses.replace(fresh_store, endpoint=proxy.endpoint.replace("//", "//user:CANARY-PASSWORD@"))
    with pytest.raises(Unreachable, match="make up") as caught:
        Bucket(fresh_store.bucket, gone).get("key")
    assert "CANARY" not in str(caught.value)


def test_a_conflict_is_asked_again_and_is_no_loss(bucket: Bucket, far: Bucket, proxy: FaultProxy) -> None:
    proxy.faults = first(Fault(status=409, code="ConditionalRequestConflict"), "PUT", times=3)
    far.put("key", b"body", if_absent=True)
    assert bucket.get("key") == b"body"


def test_a_conflict_that_does_not_end_is_named(far: Bucket, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipelines.storage.bucket, "_CONFLICT_SECONDS", 0.2)
    proxy.faults = first(Fault(status=409, code="ConditionalRequestConflict"), "PUT", times=99_999)
    with pytest.raises(Unreachable, match="other writers kept it busy"):
        far.put("key", b"body", if_absent=True)


def test_a_conditional_write_whose_reply_is_lost_is_known_to_be_ours(bucket: Bucket, far: Bucket, proxy: FaultProxy) -> None:
    proxy.faults = first(Fault(lose_reply=True), "PUT")
    far.put("key", b"first", if_absent=True)
    assert proxy.count("PUT") == 2  # the second was refused: the object was there, and it was ours
    tag = bucket.get_with_etag("key")[1]
    proxy.faults = lambda request: Fault(lose_reply=True) if request.method == "PUT" and request.number == 2 else None
    far.put("key", b"second", if_match=tag)
    assert bucket.get("key") == b"second"


def test_a_conditional_write_over_another_body_is_refused(bucket: Bucket) -> None:
    bucket.put("key", b"first", if_absent=True)
    with pytest.raises(Exists, match="exists already or was changed"):
        bucket.put("key", b"second", if_absent=True)
    body, tag = bucket.get_with_etag("key")
    bucket.put("key", b"third", if_match=tag)
    with pytest.raises(Exists):
        bucket.put("key", b"fourth", if_match=tag)
    assert (body, bucket.get("key")) == (b"first", b"third")


def test_of_many_writers_at_once_one_wins(bucket: Bucket) -> None:
    gate, count = threading.Barrier(4), 5

    def write(writer: int) -> list[bool]:
        won = []
        for number in range(count):
            gate.wait()
            try:
                bucket.put(f"key-{number}", f"of {writer}".encode(), if_absent=True)
                won.append(True)
            except Exists:
                won.append(False)
        return won

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(write, range(4)))
    for number in range(count):
        (winner,) = [writer for writer in range(4) if outcomes[writer][number]]
        assert bucket.get(f"key-{number}") == f"of {winner}".encode()


def test_a_large_file_goes_in_parts_and_survives_a_reset_upload(
    bucket: Bucket, far: Bucket, proxy: FaultProxy, tmp_path: Path
) -> None:
    path = tmp_path / "large"
    path.write_bytes(BODY * 10)
    proxy.faults = lambda request: Fault(reset_upload_at=99_999) if request.method == "PUT" and request.number == 1 else None
    far.upload(path, "large", "application/octet-stream")
    assert b"".join(bucket.stream("large")) == BODY * 10


def test_an_upload_that_fails_is_taken_back_and_leaves_no_object(
    bucket: Bucket, far: Bucket, proxy: FaultProxy, tmp_path: Path
) -> None:
    path = tmp_path / "large"
    path.write_bytes(BODY * 10)
    proxy.faults = lambda request: Fault(status=500) if "partNumber=2" in request.query or request.method == "DELETE" else None
    with pytest.raises(Unreachable, match="UploadPart failed: InternalError"):
        far.upload(path, "large")
    assert proxy.count("DELETE") > 0  # tried, and its own failure did not hide the first
    assert bucket.sizes("") == {}


def test_a_store_that_ignores_conditions_is_refused(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.check_conditional_writes("probes/")
    real = bucket._call
    for ignored in ("IfNoneMatch", "IfMatch"):

        def call(method: str, key: str, ignored: str = ignored, **arguments: Any) -> Any:
            return real(method, key, **{name: value for name, value in arguments.items() if name != ignored})

        monkeypatch.setattr(bucket, "_call", call)
        with pytest.raises(DataError, match="the store ignores conditional writes"):
            bucket.check_conditional_writes("probes/")
    assert bucket.sizes("probes/") == {}


@pytest.mark.parametrize(
    ("status", "code", "advice"),
    [
        (403, "ExpiredToken", "renew the credentials"),
        (403, "SignatureDoesNotMatch", "check AWS_SECRET_ACCESS_KEY"),
        (301, "PermanentRedirect", "set AWS_REGION"),
        (403, "RequestTimeTooSkewed", "clock"),
    ],
)
def test_what_trying_again_cannot_cure_is_asked_once_and_named(
    far: Bucket, proxy: FaultProxy, status: int, code: str, advice: str
) -> None:
    proxy.faults = first(Fault(status=status, code=code), "PUT", times=99)
    with pytest.raises(DataError, match=advice) as caught:
        far.put("key", b"body")
    assert not isinstance(caught.value, Unreachable)
    assert proxy.count("PUT") <= 2  # a redirect is looked into once


@pytest.mark.parametrize(
    ("variables", "advice"),
    [
        ({"AWS_PROFILE": "nobody"}, "unset AWS_PROFILE"),
        ({"AWS_CONFIG_FILE": "{garbage}"}, "unset AWS_CONFIG_FILE"),
        ({"AWS_SHARED_CREDENTIALS_FILE": "{garbage}"}, "unset AWS_SHARED_CREDENTIALS_FILE"),
        ({"AWS_SECRET_ACCESS_KEY": ""}, "set AWS_SECRET_ACCESS_KEY"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "set AWS_ACCESS_KEY_ID"),
    ],
)
def test_settings_that_boto3_refuses_are_named_and_the_advice_cures_it(
    variables: dict[str, str], advice: str, fresh_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "garbage").write_bytes(bytes(range(256)))
    right = {
        "AWS_ACCESS_KEY_ID": fresh_store.access_key,
        "AWS_SECRET_ACCESS_KEY": fresh_store.secret_key,
        "AWS_ENDPOINT_URL": fresh_store.endpoint,
        "AWS_EC2_METADATA_DISABLED": "true",
        "HOME": str(tmp_path),
        "ALEXNET_BUCKET": fresh_store.bucket,
    }
    for name, value in (right | variables).items():
        monkeypatch.setenv(name, str(value).format(garbage=tmp_path / "garbage"))
    with pytest.raises(DataError) as refused:
        data_bucket().sizes("")
    assert advice.split()[1] in str(refused.value).rpartition(";")[2]
    for name in variables:
        monkeypatch.setenv(name, str(right[name])) if name in right else monkeypatch.delenv(name)
    assert data_bucket().sizes("") == {}


def test_a_wrong_secret_and_a_missing_bucket_are_named(fresh_store: Store) -> None:
    wrong = dataclasses.replace(fresh_store, secret_key="CANARY-SECRET")
    with pytest.raises(DataError, match=r"AWS_SECRET_ACCESS_KEY|may do") as caught:
        Bucket(fresh_store.bucket, wrong).get("key")
    assert "CANARY" not in str(caught.value)
    with pytest.raises(DataError, match="NoSuchBucket; create it, or correct ALEXNET_BUCKET"):
        Bucket("there-is-no-such-bucket", fresh_store).check()


@pytest.mark.parametrize(
    "endpoint",
    ["u:CANARY@127.0.0.1:9", "http://u:CANARY@127.0.0.1:9", "http://u:pa/CANARY@127.0.0.1:9", "http://u:p@CANARY@127.0.0.1:9"],
)
@pytest.mark.usefixtures("no_pauses")
def test_an_endpoint_keeps_its_password_to_itself(fresh_store: Store, endpoint: str) -> None:
    """Whether it is refused as no address or asked in vain."""
    odd = dataclasses.replace(fresh_store, endpoint=endpoint)
    with pytest.raises(DataError, match="check AWS_ENDPOINT_URL") as caught:
        Bucket("bucket", odd).get("key")
    assert "CANARY" not in str(caught.value)
    assert "CANARY" not in repr(odd)
    assert "127.0.0.1:9" in repr(odd)


def test_an_endpoint_that_is_no_address_is_named(fresh_store: Store) -> None:
    with pytest.raises(DataError, match="check AWS_ENDPOINT_URL"):
        Bucket("bucket", dataclasses.replace(fresh_store, endpoint="nonsense")).get("key")


def test_no_secret_is_logged_at_debug(
    far: Bucket, proxy: FaultProxy, fresh_store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("botocore", "boto3", "urllib3"):
        logging.getLogger(name).setLevel(logging.DEBUG)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "CANARY-KEY-ID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "CANARY-SECRET")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "CANARY-TOKEN")
    by_environment = dataclasses.replace(fresh_store, endpoint=proxy.endpoint, access_key=None, secret_key=None)
    with pytest.raises(DataError) as caught:
        Bucket(fresh_store.bucket, by_environment).put("key", b"body")
    assert "CANARY" not in caplog.text + str(caught.value)
