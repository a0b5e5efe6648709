"""An HTTP proxy before the store that misbehaves as it is told: what a network does, and what a store answers, on demand.

proxy = FaultProxy(endpoint)
proxy.faults = lambda request: Fault(cut_at=1000) if request.method == "GET" and request.number == 0 else None
"""

import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Request:
    """What the client asks; `number` counts the requests of this method and path before it."""

    method: str
    path: str
    query: str
    number: int


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request. Offsets count bytes of the body.

    status, code: the store is not asked; this is the answer.
    lose_reply: the store does it, the client never learns.
    reset_upload_at: the connection is reset when so much of the client's body has come.
    cut_at: the reply's body ends there, by `how`: a closed or a reset connection, or silence.
    flip_at: this byte of the reply's body has a bit flipped.
    bytes_per_second: how fast the reply's body comes.
    """

    status: int | None = None
    code: str = "InternalError"
    lose_reply: bool = False
    reset_upload_at: int | None = None
    cut_at: int | None = None
    how: Literal["close", "reset", "stall"] = "close"
    flip_at: int | None = None
    bytes_per_second: float | None = None


class FaultProxy:
    """Listens on a free port of loopback until it is closed. `seen` are the requests that arrived, in order."""

    def __init__(self, upstream: str) -> None:
        address = urlsplit(upstream)
        self._upstream = (address.hostname or "127.0.0.1", address.port or 80)
        self.faults: Callable[[Request], Fault | None] = lambda request: None
        self.seen: list[Request] = []
        self._counts: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()
        self._open = True
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        """Stops listening."""
        self._open = False
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def count(self, method: str, end: str = "") -> int:
        """How many requests of a method arrived for paths that end so."""
        return sum(request.method == method and request.path.endswith(end) for request in self.seen)

    def _listen(self) -> None:
        while self._open:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client:
            while self._one(client):
                pass

    def _one(self, client: socket.socket) -> bool:
        """Serves one request; whether the connection lives on."""
        head, rest = _head(client)
        if head is None:
            return False
        request, fields = self._note(head)
        fault = self.faults(request) or Fault()
        if b"100-continue" in fields.get(b"expect", b""):
            client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        chunked = b"chunked" in fields.get(b"transfer-encoding", b"")
        need = int(fields.get(b"content-length", b"0"))
        if fault.reset_upload_at is not None:
            _read_until(client, rest, lambda body: len(body) >= min(need, fault.reset_upload_at or 0))
            return _reset(client)
        body = _read_until(client, rest, lambda body: body.endswith(b"0\r\n\r\n") if chunked else len(body) >= need)
        if fault.status is not None:
            client.sendall(_error(fault.status, fault.code, request.method == "HEAD"))
            return True
        with socket.create_connection(self._upstream) as store:
            store.sendall(_as_last_request(head) + body)
            return self._reply(client, store, fault)

    def _note(self, head: bytes) -> tuple[Request, dict[bytes, bytes]]:
        first, *lines = head.split(b"\r\n")
        method, target, _ = first.decode().split(" ")
        path, _, query = target.partition("?")
        with self._lock:
            request = Request(method, path, query, self._counts[method, path])
            self._counts[method, path] += 1
            self.seen.append(request)
        return request, {name.strip().lower(): value.strip() for name, value in (line.split(b":", 1) for line in lines)}

    def _reply(self, client: socket.socket, store: socket.socket, fault: Fault) -> bool:
        if fault.lose_reply:
            while store.recv(1 << 16):
                pass
            return _reset(client)
        head, start = _head(store)
        if head is None:  # the store was stopped, or the client gave up
            return _reset(client)
        body = bytearray(_read_until(store, start, lambda body: False))
        if fault.flip_at is not None and fault.flip_at < len(body):
            body[fault.flip_at] ^= 1
        client.sendall(head + b"\r\n\r\n")
        if fault.cut_at is not None and fault.cut_at < len(body):
            client.sendall(body[: fault.cut_at])
            if fault.how == "stall":
                with suppress(TimeoutError):
                    client.settimeout(30)
                    client.recv(1)
            return _reset(client) if fault.how == "reset" else False
        step = len(body) if fault.bytes_per_second is None else max(1, int(fault.bytes_per_second / 20))
        for at in range(0, len(body), max(1, step)):
            client.sendall(body[at : at + step])
            if fault.bytes_per_second is not None:
                time.sleep(0.05)
        return False


def _head(connection: socket.socket) -> tuple[bytes | None, bytes]:
    """A message's head, and what arrived of its body; None at the end of the connection."""
    received = b""
    while b"\r\n\r\n" not in received:
        piece = connection.recv(1 << 16)
        if not piece:
            return None, b""
        received += piece
    head, body = received.split(b"\r\n\r\n", 1)
    return head, body


def _read_until(connection: socket.socket, start: bytes, is_complete: Callable[[bytes | bytearray], bool]) -> bytes:
    body = bytearray(start)
    while not is_complete(body):
        piece = connection.recv(1 << 18)
        if not piece:
            break
        body += piece
    return bytes(body)


def _as_last_request(head: bytes) -> bytes:
    """The store closes the connection after its reply: so the reply's end is seen without counting."""
    kept = [line for line in head.split(b"\r\n") if not re.match(rb"(connection|expect)\s*:", line, re.IGNORECASE)]
    return b"\r\n".join([*kept, b"Connection: close"]) + b"\r\n\r\n"


def _error(status: int, code: str, is_head: bool) -> bytes:
    body = b"" if is_head else f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
    return b"HTTP/1.1 %d Injected\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body


def _reset(connection: socket.socket) -> bool:
    """Ends the connection by RST instead of FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    return False
