"""Processes that a test ends."""

import os
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess


def kill_when(victim: BaseProcess, ready: Callable[[], bool]) -> None:
    """Kills a process by SIGKILL as soon as `ready` holds, and waits for its end."""
    while not ready():
        assert victim.is_alive()
        time.sleep(0.005)
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    victim.join()
