"""One bucket of the object store: reads that are resumed, conditional writes, errors that name bucket and key.

botocore repeats requests that fail. This module adds what it lacks: it resumes a body that breaks off, repeats a write that
conflicts with another writer's, and raises the errors of `pipelines.runtime.errors`. No message holds a credential.
The store compares every body that is written with a SHA-256 that is sent along.
"""

import contextlib
import hashlib
import itertools
import json
import logging
import math
import secrets
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from boto3.exceptions import S3UploadFailedError
from boto3.s3.transfer import TransferConfig
from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConfigParseError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
)
from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.session import Session as CoreSession
from urllib3.exceptions import HTTPError

from alexnet.errors import DataError
from alexnet.files.strict import LARGEST
from pipelines.runtime import console, environment, timings
from pipelines.runtime.errors import Denied, Exists, Missing, Unreachable

_CHUNK = 1 << 18
_TRANSFER = TransferConfig(multipart_threshold=16 << 20, multipart_chunksize=16 << 20)
_ATTEMPTS = 5  # of one request, the first included
_RESUMES = 5  # in a row, of a body that breaks off without _CHUNK more bytes than before
_TIMEOUT_SECONDS = 60.0  # without a byte; then the request is repeated or the body resumed
_MIN_RATE = 1_000  # bytes per second; a body that is slower for a whole timeout counts as broken off
_CONFLICT_SECONDS = 30.0  # of other writers at the same key, or of too many requests

_TRANSIENT = {
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "RequestTimeout",
    "RequestLimitExceeded",
    "BandwidthLimitExceeded",
}
_REGION = "set AWS_REGION to the bucket's region"
_CHECK = "check AWS_ENDPOINT_URL and the AWS credentials"
_SETTINGS: dict[type[Exception], str] = {  # errors before any request, and what sets it right
    ProfileNotFound: "set AWS_PROFILE to one that is in ~/.aws/config, or unset it",
    ConfigParseError: "mend that file, or unset AWS_CONFIG_FILE or AWS_SHARED_CREDENTIALS_FILE, whichever names it",
    NoCredentialsError: "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    PartialCredentialsError: "set both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
}
_ADVICE = {
    "NoSuchBucket": "create it, or correct ALEXNET_BUCKET / ALEXNET_REGISTRY",
    "InvalidAccessKeyId": "check AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "check AWS_SECRET_ACCESS_KEY",
    "AccessDenied": "check the credentials and what they may do",
    "ExpiredToken": "renew the credentials and run again; what was finished is kept",
    "RequestTimeTooSkewed": "set this machine's clock",
    "BadDigest": "the body was damaged on its way; run again",
    "InvalidRange": "the object is shorter than it was; run again",
    "PermanentRedirect": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "301": _REGION,
    "403": "check the credentials and what they may do",
    "404": "check the bucket's name and the key",
}


_ANSWERED: set[str | None] = set()  # the stores that have answered this process, by endpoint, None: AWS


class Bucket:
    """Objects by key, for any number of threads. Keys use `/`; every method raises DataError that names bucket and key."""

    def __init__(self, name: str, at: environment.Store) -> None:
        self.name = name
        self._at = at
        self._said, self._said_at = threading.Lock(), -math.inf

    def __str__(self) -> str:
        return f"s3://{self.name}"

    @property
    def place(self) -> str:
        """The bucket and its store, without credentials: equal on all machines that see the same objects."""
        return f"{self} at {environment.without_user(self._at.endpoint or 'AWS')}"

    def check(self) -> None:
        """Raises DataError unless the bucket exists and may be listed."""
        self._call("list_objects_v2", "", MaxKeys=1)

    def check_conditional_writes(self, prefix: str) -> None:
        """Raises DataError if the store ignores If-None-Match or If-Match, as some do. Writes an object under the prefix."""
        key = f"{prefix}{secrets.token_hex(8)}"
        self.put(key, b"first", if_absent=True)
        try:
            for if_match in (None, '"0123456789abcdef0123456789abcdef"'):
                try:
                    self.put(key, b"second", if_absent=if_match is None, if_match=if_match)
                except (Exists, Missing):
                    continue
                raise DataError(
                    f"{self}: the store ignores conditional writes, so that publishers could overwrite each other; "
                    "use one that has If-None-Match and If-Match (AWS S3, SeaweedFS, R2, recent MinIO)"
                )
        finally:
            self.delete(key)

    def stream(self, key: str, start: int = 0, size: int | None = None) -> Iterator[bytes]:
        """The object's bytes from `start` on, at most `size`. The caller compares their digest: only their number is checked.

        A body that breaks off is resumed where it broke, from the same version of the object, for ALEXNET_STORE_MINUTES.

        Raises:
            Unreachable: it broke off too often and for too long, or the object was replaced meanwhile.
        """
        etag, failures, resumed_at, since = None, 0, start, time.monotonic()
        end = None if size is None else start + size
        while end is None or start < end:
            reply = self._open(key, start, end, etag)
            etag = reply["ETag"]
            total = start + int(reply["ContentLength"])
            end = total if end is None else min(end, total)
            try:
                for chunk in _chunks(reply["Body"]):
                    start += len(chunk)
                    timings.count_store("received", len(chunk))
                    yield chunk
                if start >= end:
                    return
                cause: Exception = EOFError("it ended early")
            except (HTTPError, OSError) as error:
                cause = error
            failures, since = (0, time.monotonic()) if start - resumed_at >= _CHUNK else (failures + 1, since)
            resumed_at = start
            if failures > _RESUMES:
                failure = Unreachable(
                    f"{self}/{key}: the body broke off {failures} times at byte {start:,} of {end:,}: {_clean(cause)}; "
                    "check the link to the store and run again"
                )
                self._check_patience(failure, cause, since, environment.store_seconds())
            time.sleep(0.1 * 2 ** min(failures, 4))

    def get(self, key: str, most: int = LARGEST) -> bytes:
        """The bytes of a small object, see `get_with_etag`."""
        return self.get_with_etag(key, most)[0]

    def get_with_etag(self, key: str, most: int = LARGEST) -> tuple[bytes, str]:
        """The bytes of a small object, compared with the checksum that the store has of it, and its entity tag.

        Raises:
            Missing: there is no such object.
            DataError: it is damaged, or has more than `most` bytes, of which none are read then.
        """
        since, damaged = time.monotonic(), 0
        for failures in itertools.count(1):
            reply = self._call("get_object", key, ChecksumMode="ENABLED")
            if (size := int(reply["ContentLength"])) > most:
                reply["Body"].close()
                raise DataError(f"{self}/{key}: has {size:,} bytes; at most {most:,} are read; another program changed it")
            try:
                body = bytes(reply["Body"].read())
                timings.count_store("received", len(body))
                return body, str(reply["ETag"])
            except FlexibleChecksumError:
                damaged += 1
                if damaged == _ATTEMPTS:
                    raise DataError(
                        f"{self}/{key}: differs from the store's checksum, fetched {damaged} times; the object is damaged"
                    ) from None
            except (IncompleteReadError, HTTPClientError, OSError) as error:
                if failures >= _ATTEMPTS:
                    failure = Unreachable(f"{self}/{key}: the body broke off {failures} times: {_clean(error)}; run again")
                    self._check_patience(failure, error, since, environment.store_seconds())
            time.sleep(0.1 * 2 ** min(failures, 4))
        raise AssertionError("unreachable")

    def get_range(self, key: str, start: int, size: int) -> bytes:
        """`size` bytes of the object from `start` on. Raises DataError when it has fewer."""
        body = b"".join(self.stream(key, start, size))
        if len(body) != size:
            raise DataError(
                f"{self}/{key}: has {len(body):,} bytes from byte {start:,} on, {size:,} were expected; was it replaced?"
            )
        return body

    def digest(self, key: str) -> tuple[str, int] | None:
        """SHA-256 and number of the bytes of an object of any size; None if there is none."""
        digest, size = hashlib.sha256(), 0
        try:
            for chunk in self.stream(key):
                digest.update(chunk)
                size += len(chunk)
        except Missing:
            return None
        return digest.hexdigest(), size

    def read_if_whole(self, key: str) -> bytes | None:
        """A small object; None if there is none, empty if the store finds it damaged."""
        try:
            return self.get(key)
        except Missing:
            return None
        except (Denied, Unreachable):
            raise
        except DataError:
            return b""

    def sizes(self, prefix: str) -> dict[str, int]:
        """Keys under the prefix and their sizes in bytes, in order of key."""
        return {key: size for key, size, _ in sorted(self.listing(prefix))}

    def listing(self, prefix: str) -> Iterator[tuple[str, int, str]]:
        """Key, size in bytes and entity tag of every object under the prefix."""
        token: dict[str, str] = {}
        while True:
            page = self._call("list_objects_v2", "", Prefix=prefix, **token)
            for entry in page.get("Contents", []):
                yield entry["Key"], int(entry["Size"]), entry["ETag"].strip('"')
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def modified(self, key: str) -> datetime:
        """When the object was written, in UTC. Raises Missing when there is none."""
        found: datetime = self._call("head_object", key)["LastModified"]
        return found.astimezone(UTC)

    def put(
        self,
        key: str,
        body: bytes,
        *,
        if_absent: bool = False,
        if_match: str | None = None,
        content_type: str | None = None,
    ) -> None:
        """Writes a small object: in any case, only if there is none, or only over the one with this entity tag.

        A conditional write that is refused is compared with the object: when they are equal, this write succeeded and only its
        reply was lost. A writer who must know that it was its own puts a nonce into the body.

        Raises:
            Exists: the condition does not hold, and the object is another one.
            Missing: `if_match` is given and there is no object.
        """
        extra = {"IfNoneMatch": "*" if if_absent else None, "IfMatch": if_match, "ContentType": content_type}
        given = {name: value for name, value in extra.items() if value}
        try:
            self._call("put_object", key, Body=body, ChecksumAlgorithm="SHA256", **given)
            timings.count_store("sent", len(body))
        except (Exists, Missing):
            with contextlib.suppress(Missing):
                if self.get(key) == body:
                    return
            raise

    def put_json(self, key: str, value: object, *, if_absent: bool = False, if_match: str | None = None) -> None:
        """Writes a value as sorted JSON, see `put`."""
        body = json.dumps(value, indent=1, sort_keys=True).encode()
        self.put(key, body, if_absent=if_absent, if_match=if_match, content_type="application/json")

    def upload(self, path: Path, key: str, content_type: str | None = None) -> None:
        """Writes a file of any size, a large one in parts; the object appears when it is complete."""
        extra = {"ChecksumAlgorithm": "SHA256"} | ({"ContentType": content_type} if content_type else {})
        self._call("upload_file", key, Filename=str(path), ExtraArgs=extra, Config=_TRANSFER)
        timings.count_store("sent", path.stat().st_size)

    def delete(self, key: str) -> None:
        """Removes an object, if there is one."""
        self._call("delete_object", key)

    @cached_property
    def _client(self) -> Any:
        environment.reach_loopback_directly()
        for name in ("boto3", "botocore", "s3transfer", "urllib3"):  # at DEBUG they write session tokens
            logging.getLogger(name).setLevel(logging.INFO)
        session = CoreSession()  # its own: it reads the environment as it is now
        session.register_component("data_loader", _descriptions())
        return Session(botocore_session=session).client(
            "s3",
            endpoint_url=self._at.endpoint,
            aws_access_key_id=self._at.access_key,
            aws_secret_access_key=self._at.secret_key,
            region_name=self._at.region,
            config=Config(
                connect_timeout=min(10.0, _TIMEOUT_SECONDS),
                read_timeout=_TIMEOUT_SECONDS,
                max_pool_connections=1024,  # at most, for any number of threads; opened when they are needed
                retries={"total_max_attempts": _ATTEMPTS, "mode": "standard"},
                response_checksum_validation="when_required",  # a range has no checksum; the caller compares digests
            ),
        )

    def _open(self, key: str, start: int, end: int | None, etag: str | None) -> Any:
        """The reply whose body is the object's bytes from `start` to `end`; of the version with this entity tag, if given."""
        options = {"Range": f"bytes={start}-{'' if end is None else end - 1}"} if start or end else {}
        if etag:
            options["IfMatch"] = etag
        try:
            return self._call("get_object", key, **options)
        except Exists:
            raise Unreachable(f"{self}/{key}: was replaced while it was read, at byte {start:,}; run again") from None

    def _call(self, method: str, key: str, **arguments: Any) -> Any:
        """What a method of boto3's client returns. Repeated while the store answers 409, another write in progress, or 429.

        Once the store has answered, a request that it does not answer, or fails at, is repeated for ALEXNET_STORE_MINUTES.
        """
        if key:
            arguments["Key"] = key
        began, pause = time.monotonic(), 0.05
        while True:
            try:
                reply = getattr(self._client, method)(Bucket=self.name, **arguments)
                _ANSWERED.add(self._at.endpoint)
                return reply
            except (ClientError, S3UploadFailedError) as error:
                cause: Exception = error
                refused: Any = error.__context__ if isinstance(error, S3UploadFailedError) else error
                status = refused.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0
                failure = self._translated(refused, key, status)
                seconds = _CONFLICT_SECONDS if status in (409, 429) else self._patience_seconds(failure)
            except (BotoConnectionError, HTTPClientError) as error:
                cause = error
                failure = Unreachable(
                    f"{self}/{key}: {_clean(error)}; check AWS_ENDPOINT_URL, or run `make up` for the local store"
                )
                seconds = self._patience_seconds(failure)
            except (BotoCoreError, ValueError) as error:
                advice = next((do for kind, do in _SETTINGS.items() if isinstance(error, kind)), _CHECK)
                raise DataError(f"{self}/{key}: {_clean(error)}; {advice}") from error
            self._check_patience(failure, cause, began, seconds)
            time.sleep(pause)
            pause = min(2 * pause, 2.0)

    def _check_patience(self, failure: DataError, cause: Exception, began: float, seconds: float) -> None:
        """Raises the failure when it has lasted so long since `began`; says from time to time that it is waited for its end."""
        waited = time.monotonic() - began
        if waited >= seconds:
            raise failure from cause
        if seconds > _CONFLICT_SECONDS:
            self._say(f"waits for {self.place}, for {waited:.0f} s so far and at most {seconds / 60:g} min: {failure}")

    def _patience_seconds(self, failure: DataError) -> float:
        """How long to repeat a request that failed so. A store that has never answered is more likely named wrongly."""
        return environment.store_seconds() if isinstance(failure, Unreachable) and self._at.endpoint in _ANSWERED else 0.0

    def _say(self, line: str) -> None:
        """Prints the line, unless one of any thread was printed lately."""
        with self._said:
            if time.monotonic() - self._said_at >= console.LINE_SECONDS:
                self._said_at = time.monotonic()
                console.note(line)

    def _translated(self, error: Any, key: str, status: int) -> DataError:
        """A ClientError as one of ours, with what to do about it."""
        code = str(error.response.get("Error", {}).get("Code", ""))
        where = f"{self}/{key}"
        if code in ("NoSuchKey", "404") and key:
            return Missing(f"{where}: no such object")
        if status == 412:
            return Exists(f"{where}: exists already or was changed by another writer")
        if status == 409:
            return Unreachable(f"{where}: other writers kept it busy for {_CONFLICT_SECONDS:.0f} s; run again")
        if status == 429:
            return Unreachable(f"{where}: the store answered {code} for {_CONFLICT_SECONDS:.0f} s; run again later")
        failed = f"{where}: {error.operation_name} failed: {code or status}"
        if code in _TRANSIENT or status >= 500:
            return Unreachable(f"{failed}, {_ATTEMPTS} times; see the store's log and run again")
        kind = Denied if status in (401, 403) else DataError
        return kind(f"{failed}; {_ADVICE.get(code, _ADVICE.get(str(status), 'see its log'))}")


def data_bucket() -> Bucket:
    """The bucket of shards and Data Docs."""
    at = environment.store()
    return Bucket(at.bucket, at)


def registry_bucket() -> Bucket:
    """The bucket of published models."""
    at = environment.store()
    return Bucket(at.registry, at)


@cache
def bucket_at(name: str, at: environment.Store) -> Bucket:
    """A bucket, one per process, so that its connections are reused."""
    return Bucket(name, at)


@cache
def _descriptions() -> Any:
    """What boto3 knows of services, from its files, read once a process: every session of its own would take 0.1 s for them."""
    return CoreSession().get_component("data_loader")


def _chunks(body: Any) -> Iterator[bytes]:
    """A body's bytes as they arrive: `body.read(n)` would block until n bytes are there, however slow the link is."""
    with body as raw:
        waited, received = 0.0, 0
        while True:
            begin = time.monotonic()
            chunk = raw.read1(_CHUNK)
            waited += time.monotonic() - begin
            if not chunk:
                return
            received += len(chunk)
            if waited >= _TIMEOUT_SECONDS:
                if received < _MIN_RATE * waited:
                    raise TimeoutError(f"only {received:,} bytes arrived in {waited:.0f} s")
                waited, received = 0.0, 0
            yield chunk


def _clean(error: Exception) -> str:
    """The error's text without the credentials that an address may hold."""
    return environment.without_user(" ".join(str(error).split()))
