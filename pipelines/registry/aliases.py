"""An alias of a model, and its history: a record of every move, with who, when and why.

NAME/aliases/ALIAS.json               which version, by which digest; written only over what was read
NAME/history/ALIAS/000007.json        the bytes that the alias has had since move 7
NAME/history/ALIAS/copies/000007.json the same, to mend either
NAME/history/ALIAS/000007.KEY.sig     the mover's signature over them, where it had a key

A record is written once, where there is none, and has the digest of the one before it: none can be changed, left out or put in
between unnoticed. A move counts once the alias is written; its record follows, by the next mover if this one is killed before.
"""

import getpass
import hashlib
import json
import os
import random
import re
import secrets
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from alexnet.config import parse_json
from alexnet.errors import DataError
from alexnet.files.strict import loads
from pipelines.registry import signing
from pipelines.registry.release import is_version
from pipelines.registry.signing import PublicKey
from pipelines.runtime.errors import Exists, Missing

if TYPE_CHECKING:
    from pipelines.storage.bucket import Bucket

_WHO = "ALEXNET_WHO"
_ATTEMPTS = 20  # to move an alias that others are moving too
_NUMBER = re.compile(r"(\d{6,})\.json")
_RECORDED = re.compile(r"(?:copies/)?(\d{6,})\.json")
_NOT_RECORDED = {"number": 0, "before_sha256": None, "action": "publish", "who": "", "at": "", "reason": ""}
Target = tuple[str, str]  # a version, and the digest of its manifest


@dataclass(frozen=True)
class Why:
    """What moves an alias, and the reason."""

    action: Literal["publish", "promote", "rollback"]
    reason: str = ""


@dataclass(frozen=True)
class Alias:
    """Where an alias points, and the move that pointed it there.

    previous: where it pointed before. nonce: no two moves are the same bytes. number: of the move, from 0. before_sha256: of
    the bytes before. who, at (UTC, ISO 8601) and reason: empty where an older program moved it.
    """

    version: str
    manifest_sha256: str
    previous: str | None
    nonce: str
    number: int
    before_sha256: str | None
    action: Literal["publish", "promote", "rollback"]
    who: str
    at: str
    reason: str

    def __post_init__(self) -> None:
        if not is_version(self.version):
            raise ValueError(f"version: is none, got {self.version!r}")


@dataclass(frozen=True)
class Record:
    """A move in the history. signed_by: ids of keys; see `AliasHistory.records`. faults: what is wrong with it."""

    alias: str
    move: Alias
    signed_by: tuple[str, ...]
    faults: tuple[str, ...]


@dataclass(frozen=True)
class _Found:
    """An alias as it is stored: with its bytes and their entity tag."""

    alias: Alias
    body: bytes
    etag: str


class AliasHistory:
    """One alias of a model: where it points, its moves, and those it has made.

    Args:
        bucket: of the registry.
        model: the name of the model.
        alias: its own name.
    """

    def __init__(self, bucket: "Bucket", model: str, alias: str) -> None:
        self._bucket, self._alias = bucket, alias
        self._key = f"{model}/aliases/{alias}.json"
        self._history = f"{model}/history/{alias}/"

    def read(self) -> Alias | None:
        """Where it points; None if there is none."""
        found = self._find()
        return found.alias if found else None

    def move(self, target: Callable[[Alias | None], Target], why: Why) -> Alias:
        """Points it where `target` says, given where it points now, and records that. Concurrent moves happen in turn."""
        for attempt in range(_ATTEMPTS):
            found = self._find()
            version, digest = target(found.alias if found else None)
            if found and found.alias.version == version:
                return found.alias
            moved = _next(found, version, digest, self._next_number(found), why)
            body = json.dumps(asdict(moved), indent=1, sort_keys=True).encode()
            try:
                self._bucket.put(
                    self._key,
                    body,
                    if_match=found.etag if found else None,
                    if_absent=not found,
                    content_type="application/json",
                )
            except (Exists, Missing):
                time.sleep(random.uniform(0, 0.05 * (attempt + 1)))
                continue
            self._record(moved.number, body, signing.sign(body))
            return moved
        raise DataError(f"{self._bucket}/{self._key}: others moved it {_ATTEMPTS} times meanwhile; run again")

    def records(self, key: PublicKey | None = None) -> list[Record]:
        """Every move, the first one first, compared with the digests of those after it.

        key: every record must be signed by it; without one, signatures are named, not checked.
        """
        listed = list(self._bucket.sizes(self._history))
        bodies = {number: self._bucket.get(self._history + _name(number)) for number in _numbers(listed, self._history)}
        found = self._find()
        if found:
            bodies.setdefault(found.alias.number, found.body)  # its mover has not recorded it, or not yet
        records, before = [], None
        for number, body in sorted(bodies.items()):
            where = f"{self._bucket}/{self._history}{_name(number)}"
            move, faults = _parse(body, where), []
            if move.number != number:
                faults.append(f"says that it is move {move.number}")
            if move.before_sha256 != before:
                faults.append("does not follow the move before it: one was changed, or is missing")
            signed_by, wrong = self._signatures(number, body, listed, key)
            records.append(Record(self._alias, move, signed_by, (*faults, *wrong)))
            before = hashlib.sha256(body).hexdigest()
        if found and max(bodies) > found.alias.number:
            last = records[-1]
            text = f"the alias points at move {found.alias.number} again: it was replaced by an older one"
            records[-1] = Record(last.alias, last.move, last.signed_by, (*last.faults, text))
        return records

    def damaged(self, key: PublicKey | None, is_own: Callable[[str], bool]) -> Iterator[tuple[str, str, bytes | None]]:
        """Key of every object that is damaged, what is wrong with it, and what mends it; None where nothing does.

        A move is right when the one after it has its digest; the newest when two of alias, record and copy agree.

        Args:
            key: moves must be signed by it; None: signatures are not checked but against the key to sign with.
            is_own: whether a version is at hand here, so that its owner may sign a move to it.
        """
        listed = list(self._bucket.sizes(self._history))
        bodies = {place: self._bucket.read_if_whole(place) for place in [*listed, self._key]}
        alias = bodies[self._key]
        numbers = {int(found[1]) for each in listed if (found := _RECORDED.fullmatch(each.removeprefix(self._history)))}
        last, at = max(numbers, default=-1), _number_of(alias)
        newest = {bodies.get(self._history + name) for name in (_name(last), _copy(last))}
        if alias and at == last + 1 and _follows(alias, newest):
            last += 1  # its mover has not recorded it, or not yet
        digest: str | None = None  # of the move, by the one after it
        for number in range(last, -1, -1):
            places = [self._history + _name(number), self._history + _copy(number), *([self._key] if number == last else [])]
            right = _right([bodies.get(place) for place in places], digest, number)
            for place in places:
                if (stored := bodies.get(place)) is None or stored != right:
                    yield place, "is missing" if stored is None else "is not the move that was made", right
            if right is not None:
                yield from self._damaged_signatures(number, right, listed, key, is_own)
            digest = json.loads(right).get("before_sha256") if right else None

    def _damaged_signatures(
        self, number: int, body: bytes, listed: list[str], key: PublicKey | None, is_own: Callable[[str], bool]
    ) -> Iterator[tuple[str, str, bytes | None]]:
        own_id, own = signing.sign(body) or ("", b"")
        start = f"{self._history}{_name(number, '')}"
        wanted = {place for place in listed if place.startswith(start) and place.endswith(".sig")}
        for place in sorted(wanted | ({f"{start}{key.id}.sig"} if key else set())):
            stored, fault = self._bucket.read_if_whole(place), ""
            is_mine = place == f"{start}{own_id}.sig"
            if stored is None:
                fault = "is missing"
            elif key and place == f"{start}{key.id}.sig":
                try:
                    key.verify(body, stored, place)
                except DataError as error:
                    fault = str(error)
            elif is_mine and stored != own:
                fault = "is not that of the key in ALEXNET_SIGNING_KEY"
            if fault:
                yield place, fault, own if is_mine and is_own(_parse(body, place).version) else None

    def _find(self) -> _Found | None:
        try:
            body, etag = self._bucket.get_with_etag(self._key)
        except Missing:
            return None
        return _Found(_parse(body, f"{self._bucket}/{self._key}"), body, etag)

    def _next_number(self, found: _Found | None) -> int:
        """One more than any move has; records the present one if its mover was killed before it did."""
        numbers = _numbers(list(self._bucket.sizes(self._history)), self._history)
        if found and found.alias.number not in numbers:
            self._record(found.alias.number, found.body, None)
            numbers.append(found.alias.number)
        return max(numbers, default=-1) + 1

    def _record(self, number: int, body: bytes, signature: tuple[str, bytes] | None) -> None:
        if signature:
            key_id, signed = signature
            self._bucket.put(f"{self._history}{_name(number, f'{key_id}.sig')}", signed, if_absent=True)
        for name in (_name(number), _copy(number)):
            self._bucket.put(self._history + name, body, if_absent=True, content_type="application/json")

    def _signatures(
        self, number: int, body: bytes, listed: list[str], key: PublicKey | None
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The ids of the keys that signed a record, and what is wrong with the signature by `key`."""
        start = f"{self._history}{_name(number, '')}"
        ids = tuple(
            name.removeprefix(start).removesuffix(".sig") for name in listed if name.startswith(start) and name.endswith(".sig")
        )
        if key is None:
            return ids, ()
        if key.id not in ids:
            return ids, (f"is not signed by key {key.id}",)
        try:
            key.verify(body, self._bucket.get(f"{start}{key.id}.sig"), f"move {number}")
        except DataError as error:
            return ids, (str(error),)
        return ids, ()


def who() -> str:
    """ALEXNET_WHO, or this user and machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no variable says it, and the user is not in passwd
        user = str(os.getuid())
    return os.environ.get(_WHO) or f"{user}@{socket.gethostname()}"


def _next(found: _Found | None, version: str, digest: str, number: int, why: Why) -> Alias:
    return Alias(
        version=version,
        manifest_sha256=digest,
        previous=found.alias.version if found else None,
        nonce=secrets.token_hex(8),
        number=number,
        before_sha256=hashlib.sha256(found.body).hexdigest() if found else None,
        action=why.action,
        who=who(),
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        reason=why.reason,
    )


def _parse(body: bytes, where: str) -> Alias:
    """Also of the form before moves were recorded. Raises DataError when it is damaged."""
    try:
        tree = loads(body)
    except ValueError:
        tree = None
    if isinstance(tree, dict) and "number" not in tree:
        body = json.dumps(_NOT_RECORDED | tree).encode()
    return parse_json(Alias, body, where, "it is damaged: publish again, or remove it")


def _right(bodies: list[bytes | None], sha256: str | None, number: int) -> bytes | None:
    """Which of these is the move of this number: by its digest, else what two of them are, or all that there are."""
    found = Counter(body for body in bodies if body is not None and _number_of(body) == number)
    if sha256:
        return next((body for body in found if hashlib.sha256(body).hexdigest() == sha256), None)
    best = found.most_common(2)
    return best[0][0] if best and (len(best) == 1 or best[0][1] > best[1][1]) else None


def _follows(body: bytes, before: set[bytes | None]) -> bool:
    """Whether a move has the digest of one of these as the one before it, or none where there is none."""
    digests: set[str | None] = {hashlib.sha256(each).hexdigest() for each in before if each is not None}
    return json.loads(body).get("before_sha256") in (digests or {None})


def _number_of(body: bytes | None) -> int | None:
    """Of a move; None if it is damaged."""
    try:
        return _parse(body or b"", "").number
    except DataError:
        return None


def _copy(number: int) -> str:
    return f"copies/{_name(number)}"


def _name(number: int, end: str = "json") -> str:
    return f"{number:06}.{end}"


def _numbers(keys: list[str], prefix: str) -> list[int]:
    return [int(found[1]) for key in keys if (found := _NUMBER.fullmatch(key.removeprefix(prefix)))]
