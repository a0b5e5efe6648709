"""What can happen to an object of a store: what is left of its bytes; None: it is gone."""

from collections.abc import Callable

from pipelines.storage.bucket import Bucket

DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "a flipped bit": lambda body: bytes([*body[: len(body) // 2], body[len(body) // 2] ^ 1, *body[len(body) // 2 + 1 :]]),
    "cut": lambda body: body[:-7],
    "emptied": lambda body: b"",
    "removed": lambda body: None,
}


def damage(bucket: Bucket, key: str, body: bytes | None) -> None:
    """Leaves these bytes of an object."""
    if body is None:
        bucket.delete(key)
    else:
        bucket.put(key, body)
