"""Ports on loopback: which are free, and which one the user asked for."""

import os
import socket
from collections.abc import Set as AbstractSet


def is_free(port: int) -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def find_free(number: int, but: AbstractSet[int] = frozenset()) -> list[int]:
    """Different free ports, none of them one of `but`."""
    sockets = [socket.socket() for _ in range(number + len(but))]
    try:
        for held in sockets:
            held.bind(("127.0.0.1", 0))
        return [port for held in sockets if (port := held.getsockname()[1]) not in but][:number]
    finally:
        for held in sockets:
            held.close()


def from_environment(variable: str) -> int | None:
    """The port that the variable names, or None where it is not set.

    Raises:
        ValueError: it is no port number.
    """
    text = os.environ.get(variable, "")
    if text and not (text.isdigit() and 0 < int(text) < 65536):
        raise ValueError(f"{variable}: must be a port number, got {text!r}")
    return int(text) if text else None
