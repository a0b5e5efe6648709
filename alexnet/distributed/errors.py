"""What can go wrong between the processes of a team."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Lost(RuntimeError):
    """Another process of the team ended, or did not answer in time."""


@contextmanager
def raises_lost(what: str) -> Iterator[None]:
    """Turns the many errors of an exchange with other processes into one; memory that this process lacks is none of them."""
    try:
        yield
    except (Lost, torch.OutOfMemoryError):
        raise
    except RuntimeError as error:
        raise Lost(f"{what}: {error}") from error
