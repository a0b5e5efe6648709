"""TCP ports on loopback: finding free ones, and checking the one that the user chose."""

import os
import re
import socket
from collections.abc import Set as AbstractSet


def is_free(port: int) -> bool:
    """Whether a server can bind the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def find_free(number: int, exclude: AbstractSet[int] = frozenset()) -> list[int]:
    """Different free ports, none of them in `exclude`."""
    sockets = [socket.socket() for _ in range(number + len(exclude))]
    try:
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [port for probe in sockets if (port := probe.getsockname()[1]) not in exclude][:number]
    finally:
        for probe in sockets:
            probe.close()


def is_port(value: object) -> bool:
    """Whether it is the number of a port."""
    return type(value) is int and 0 < value < 65536


def from_environment(variable: str) -> int | None:
    """The port in an environment variable, or None where it is not set.

    Raises:
        ValueError: its value is no port number.
    """
    text = os.environ.get(variable, "")
    if text and not (re.fullmatch("[0-9]{1,5}", text) and is_port(int(text))):
        raise ValueError(f"{variable}: must be a port number, got {text!r}")
    return int(text) if text else None


def require_free(port: int, variable: str) -> int:
    """The port itself, which the user chose by an environment variable.

    Raises:
        ValueError: another program listens on it.
    """
    if not is_free(port):
        raise ValueError(f"port {port} is taken by another program; set {variable} to a free one or unset it")
    return port
