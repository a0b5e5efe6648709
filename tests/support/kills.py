"""A process that is killed at a moment of the test's choice."""

import os
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess


def kill_when(victim: BaseProcess, ready: Callable[[], bool]) -> None:
    """SIGKILL as soon as it is ready, and the wait for its end."""
    while not ready():
        assert victim.is_alive()
        time.sleep(0.005)
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    victim.join()
