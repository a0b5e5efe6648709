"""A Dask scheduler and workers, as programs of their own."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def scheduler(folder: Path) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    """A scheduler without workers, and its address. Its file lies in the folder."""
    file = folder / "scheduler.json"
    process = _started("dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file))
    try:
        while not (file.is_file() and file.read_text()):
            assert process.poll() is None
            time.sleep(0.05)
        yield process, json.loads(file.read_text())["address"]
    finally:
        process.kill()
        process.wait()


@contextmanager
def worker(
    address: str, folder: Path | None = None, env: Mapping[str, str] = os.environ
) -> Iterator["subprocess.Popen[bytes]"]:
    """A worker of one thread with its nanny, started in the folder."""
    process = _started("dask_worker", address, "--nthreads", "1", "--no-dashboard", folder=folder, env=env)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _started(
    program: str, *arguments: str, folder: Path | None = None, env: Mapping[str, str] = os.environ
) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", f"distributed.cli.{program}", *arguments]
    return subprocess.Popen(command, cwd=folder, env=dict(env), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
