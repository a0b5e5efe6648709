"""One bucket of the object store: reads that survive a cut body, conditional writes, errors that name the place.

What the store answers is one of three things to a caller: a named condition (`Missing`, `Exists`), a failure that trying again
later can cure (`Unreachable`), or one that it cannot (`DataError`). No message holds a credential.
"""

import base64
import contextlib
import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
)
from botocore.exceptions import (
    ConnectionError as NoConnection,
)
from urllib3.exceptions import HTTPError

from alexnet.errors import DataError
from pipelines.runtime import environment
from pipelines.runtime.errors import Denied, Exists, Missing, Unreachable

_CHUNK = 1 << 18
_PART = 16 << 20  # uploads above this go in parts
_ATTEMPTS = 5  # of one request, first one included
_CUTS = 5  # how often in a row a body that breaks off without having come further is taken up again
_LEAST = 1_000  # bytes a second; a body that comes slower than that for a whole timeout has as good as broken off
_PATIENCE_SECONDS = 30.0  # for other writers of the same key

_PASSING = {
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "RequestTimeout",
    "RequestLimitExceeded",
    "BandwidthLimitExceeded",
}
_REGION = "set AWS_REGION to the bucket's region"
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


class Bucket:
    """Objects by key. Keys use `/`; every method raises DataError that names bucket and key.

    Args:
        name: The bucket's.
        at: The store that has it.
        timeout_seconds: How long a connection may be silent; then the request is tried again or the body resumed.
    """

    def __init__(self, name: str, at: environment.Store, timeout_seconds: float = 60.0) -> None:
        self.name = name
        self._at = at
        self._timeout_seconds = timeout_seconds
        self._made: Any = None
        self._making = threading.Lock()

    def __str__(self) -> str:
        return f"s3://{self.name}"

    @property
    def place(self) -> str:
        """The bucket and its store, without credentials: equal wherever the same objects are seen."""
        return f"{self} at {environment.without_user(self._at.endpoint or 'AWS')}"

    def check(self) -> None:
        """Raises unless the bucket is there and may be listed."""
        self._call("list_objects_v2", "", MaxKeys=1)

    # Reading.

    def stream(self, key: str, start: int = 0, size: int | None = None) -> Iterator[bytes]:
        """The object's bytes from `start` on, `size` of them at most.

        A body that breaks off is resumed where it broke, on the same version or not at all. Nothing is checked but the length:
        whoever reads compares the digest.
        """
        etag, cuts, mark = None, 0, start
        end = None if size is None else start + size
        while end is None or start < end:
            ranged = {"Range": f"bytes={start}-{'' if end is None else end - 1}"} if start or end else {}
            reply = self._open_body(key, start, etag, ranged)
            etag = reply["ETag"]
            total = start + int(reply["ContentLength"])
            end = total if end is None else min(end, total)
            try:
                for piece in _pieces(reply["Body"], self._timeout_seconds):
                    start += len(piece)
                    yield piece
                if start >= end:
                    return
                cause: Exception = EOFError("it ended early")
            except (HTTPError, OSError) as error:
                cause = error
            cuts = 0 if start - mark >= _CHUNK else cuts + 1
            mark = start
            if cuts > _CUTS:
                raise Unreachable(
                    f"{self}/{key}: the body broke off {cuts} times at byte {start:,} of {end:,}: {_clean(cause)}; "
                    "check the link to the store and run again"
                ) from cause
            time.sleep(0.1 * 2**cuts)

    def get(self, key: str) -> bytes:
        """The whole of a small object."""
        return self.get_tagged(key)[0]

    def get_tagged(self, key: str) -> tuple[bytes, str]:
        """The whole of a small object, and its entity tag for `put(if_match=...)`.

        It is compared with the checksum that the store keeps of it; damaged on its way, it is fetched once more.
        """
        with contextlib.suppress(_Damaged):
            return self._get(key)
        try:
            return self._get(key)
        except _Damaged as error:
            raise DataError(f"{error}, also when fetched again; the object or the link is damaged") from None

    def get_range(self, key: str, start: int, size: int) -> bytes:
        """`size` bytes of the object from `start` on. Raises DataError when it has fewer."""
        body = b"".join(self.stream(key, start, size)) if size else b""
        if len(body) != size:
            raise DataError(
                f"{self}/{key}: has {len(body):,} bytes from byte {start:,} on, {size:,} were expected; was it replaced?"
            )
        return body

    def size(self, key: str) -> int:
        """Its size in bytes. Raises Missing."""
        return int(self._call("head_object", key)["ContentLength"])

    def etag(self, key: str) -> str | None:
        """Its entity tag, for `put(if_match=...)`; None where there is no such object."""
        try:
            return str(self._call("head_object", key)["ETag"])
        except Missing:
            return None

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

    def download(self, key: str, path: Path, sha256: str) -> None:
        """Fetches an object to a file that appears only when its SHA-256 is right.

        Raises:
            DataError: the digest differs, also when fetched again; no file is left behind.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
        try:
            found = self._fetch(key, part)
            if found != sha256:
                found = self._fetch(key, part)
            if found != sha256:
                raise DataError(
                    f"{self}/{key}: sha256 is {found}, expected {sha256}, also when fetched again; "
                    "the object is damaged or was changed"
                )
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    # Writing.

    def put(
        self,
        key: str,
        body: bytes,
        *,
        if_absent: bool = False,
        if_match: str | None = None,
        content_type: str | None = None,
    ) -> None:
        """Writes a small object whole; the store checks its SHA-256.

        A conditional write that is refused is read back: if the object is this very body, the write was ours and only its reply
        was lost. Who must know that it was they put a nonce in the body.

        Raises:
            Exists: the condition does not hold, and the object is another one.
        """
        extra: dict[str, str] = {"ChecksumSHA256": _sha256(body)}
        if if_absent:
            extra["IfNoneMatch"] = "*"
        if if_match:
            extra["IfMatch"] = if_match
        if content_type:
            extra["ContentType"] = content_type
        try:
            self._call("put_object", key, Body=body, **extra)
        except (Exists, Missing):
            if not self._holds(key, body):
                raise

    def put_json(
        self,
        key: str,
        value: object,
        *,
        if_absent: bool = False,
        if_match: str | None = None,
    ) -> None:
        """Writes a value as sorted JSON."""
        body = json.dumps(value, indent=1, sort_keys=True).encode()
        self.put(
            key,
            body,
            if_absent=if_absent,
            if_match=if_match,
            content_type="application/json",
        )

    def upload(self, path: Path, key: str, content_type: str | None = None) -> None:
        """Writes a file whole, in parts when it is large; the object appears only when it is complete."""
        if path.stat().st_size <= _PART:
            self.put(key, path.read_bytes(), content_type=content_type)
            return
        kind = {"ContentType": content_type} if content_type else {}
        upload = self._call("create_multipart_upload", key, ChecksumAlgorithm="SHA256", **kind)["UploadId"]
        try:
            parts: list[dict[str, Any]] = []
            with path.open("rb") as file:
                while body := file.read(_PART):
                    number, digest = len(parts) + 1, _sha256(body)
                    reply = self._call(
                        "upload_part",
                        key,
                        UploadId=upload,
                        PartNumber=number,
                        Body=body,
                        ChecksumSHA256=digest,
                    )
                    parts.append(
                        {
                            "PartNumber": number,
                            "ETag": reply["ETag"],
                            "ChecksumSHA256": digest,
                        }
                    )
            self._call(
                "complete_multipart_upload",
                key,
                UploadId=upload,
                MultipartUpload={"Parts": parts},
            )
        except BaseException:
            with contextlib.suppress(
                DataError
            ):  # the parts are left to the bucket's lifecycle rule; the first error is the one to see
                self._call("abort_multipart_upload", key, UploadId=upload)
            raise

    def delete(self, key: str) -> None:
        """Removes an object; one that is not there is no error."""
        self._call("delete_object", key)

    # Within.

    def _client(self) -> Any:
        with self._making:
            if self._made is None:
                self._made = _make_client(self._at, self._timeout_seconds)
            return self._made

    def _open_body(self, key: str, start: int, etag: str | None, ranged: dict[str, str]) -> Any:
        same = {"IfMatch": etag} if etag else {}
        try:
            return self._call("get_object", key, **ranged, **same)
        except Exists:
            raise Unreachable(f"{self}/{key}: was replaced while it was read, at byte {start:,}; run again") from None

    def _get(self, key: str) -> tuple[bytes, str]:
        cause: Exception | None = None
        for cut in range(_CUTS):
            reply = self._call("get_object", key, ChecksumMode="ENABLED")
            try:
                return bytes(reply["Body"].read()), str(reply["ETag"])
            except FlexibleChecksumError:
                raise _Damaged(f"{self}/{key}: the bytes that came are not those of the store's checksum") from None
            except (IncompleteReadError, HTTPClientError, OSError) as error:
                cause = error
                time.sleep(0.1 * 2**cut)
        raise Unreachable(f"{self}/{key}: the body broke off {_CUTS} times: {_clean(cause)}; run again") from cause

    def _fetch(self, key: str, part: Path) -> str:
        """The SHA-256 of the object, fetched to a file."""
        digest = hashlib.sha256()
        with part.open("wb") as file:
            for chunk in self.stream(key):
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        return digest.hexdigest()

    def _holds(self, key: str, body: bytes) -> bool:
        try:
            return self.size(key) == len(body) and self.get(key) == body
        except Missing:
            return False

    def _call(self, operation: str, key: str, **arguments: Any) -> Any:
        """One request. 409 is neither won nor lost: it is asked again until another writer is done."""
        where = {"Key": key} if key else {}
        deadline, pause = time.monotonic() + _PATIENCE_SECONDS, 0.05
        while True:
            try:
                return getattr(self._client(), operation)(Bucket=self.name, **where, **arguments)
            except ClientError as error:
                status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
                if status != 409 or time.monotonic() > deadline:
                    raise self._named(error, operation, key, status) from error
            except (NoConnection, HTTPClientError) as error:
                raise Unreachable(
                    f"{self}/{key}: {_clean(error)}; check AWS_ENDPOINT_URL, or run `make up` for the local store"
                ) from error
            except (BotoCoreError, ValueError) as error:
                raise DataError(f"{self}/{key}: {_clean(error)}; check AWS_ENDPOINT_URL and the AWS credentials") from error
            time.sleep(pause)
            pause = min(2 * pause, 2.0)

    def _named(self, error: ClientError, operation: str, key: str, status: int | None) -> DataError:
        code = str(error.response.get("Error", {}).get("Code", ""))
        where = f"{self}/{key}"
        if code in ("NoSuchKey", "404") and key:
            return Missing(f"{where}: no such object")
        if status == 412:
            return Exists(f"{where}: exists already or was changed by another writer")
        if status == 409:
            return Unreachable(f"{where}: other writers kept it busy for {_PATIENCE_SECONDS:.0f} s; run again")
        if code in _PASSING or status == 429 or (status or 0) >= 500:
            return Unreachable(
                f"{where}: {operation} failed: {code or status}, {_ATTEMPTS} times; see the store's log and run again"
            )
        kind = Denied if status in (401, 403) else DataError
        return kind(
            f"{where}: {operation} failed: {code or status}; {_ADVICE.get(code, _ADVICE.get(str(status), 'see its log'))}"
        )


class _Damaged(DataError):
    """Bytes that are not those of the store's checksum."""


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
    """A bucket, for all of this process: whoever asks for it again finds its connections open."""
    return Bucket(name, at)


def _make_client(at: environment.Store, timeout_seconds: float) -> Any:
    for name in (
        "boto3",
        "botocore",
        "s3transfer",
        "urllib3",
    ):  # at DEBUG they write session tokens
        logging.getLogger(name).setLevel(logging.INFO)
    return Session().client(
        "s3",
        endpoint_url=at.endpoint,
        aws_access_key_id=at.access_key,
        aws_secret_access_key=at.secret_key,
        region_name=at.region,
        config=Config(
            connect_timeout=min(10.0, timeout_seconds),
            read_timeout=timeout_seconds,
            max_pool_connections=1024,  # of any number of threads; those that were never needed do not exist
            retries={"total_max_attempts": _ATTEMPTS, "mode": "standard"},
            response_checksum_validation="when_required",  # a ranged reply has none; digests are compared by whoever reads
        ),
    )


def _pieces(body: Any, patience_seconds: float) -> Iterator[bytes]:
    """A body's bytes as they come; `body.read` would wait for a whole chunk, and for ever on a link that only trickles."""
    with body as raw:
        waited, came = 0.0, 0
        while True:
            begin = time.monotonic()
            piece = raw.read1(_CHUNK)
            waited += time.monotonic() - begin
            if not piece:
                return
            came += len(piece)
            if waited >= patience_seconds:
                if came < _LEAST * waited:
                    raise TimeoutError(f"only {came:,} bytes came in {waited:.0f} s")
                waited, came = 0.0, 0
            yield piece


def _clean(error: Exception | None) -> str:
    """The error's text without the credentials that an address may hold."""
    return environment.without_user(" ".join(str(error).split()))


def _sha256(body: bytes) -> str:
    return base64.b64encode(hashlib.sha256(body).digest()).decode()
