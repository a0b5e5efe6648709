"""What can go wrong between the ranks of a training run, and how a rank says why it ended."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch


class Lost(RuntimeError):
    """Another rank ended, or did not answer in time."""


@dataclass(frozen=True)
class ExitStatus:
    """Why a rank ended, as the other ranks and the launcher read it.

    cause:
        done: training reached its end.
        failed: an error of its own, which a restart would meet again.
        retryable: an error of its own that a restart can cure.
        lost: another rank ended.
        hung: another rank, or the store, gave no heartbeat.
        killed, stopped, unknown: it wrote nothing itself; a signal ended it, SIGTERM did, or neither.
    """

    cause: Literal["done", "failed", "retryable", "lost", "hung", "killed", "stopped", "unknown"]
    message: str = ""


@contextmanager
def raises_lost(what: str) -> Iterator[None]:
    """Turns the RuntimeErrors that torch raises in an exchange into Lost, but for this rank's own lack of memory."""
    try:
        yield
    except (Lost, torch.OutOfMemoryError):
        raise
    except RuntimeError as error:
        raise Lost(f"{what}: {error}") from error
