"""What a stage took, as the system counts it, in a file that DVC shows and that is no output."""

import json
import os
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import Any

import pytest

from pipelines.runtime import console, timings


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _read(stage: str = "validate") -> dict[str, Any]:
    return dict(json.loads((timings.FOLDER / f"{stage}.json").read_text()))


def test_a_stage_that_ends_well_leaves_what_it_took_also_by_the_processes_that_it_started(tmp_path: Path) -> None:
    burn = "import time; x = bytearray(200_000_000); open('out', 'wb').write(x); t = time.process_time()\n"
    burn += "while time.process_time() - t < 0.3: pass"

    def main() -> None:
        subprocess.run([sys.executable, "-c", burn], check=True)
        (tmp_path / "out").read_bytes()
        timings.count_store("sent", 3)
        timings.count_store("received", 5)
        timings.count_store("received", 5)

    console.run("validate", main)
    found = _read()
    assert found["seconds"] >= 0.3
    assert found["cpu_seconds"] >= 0.3
    assert found["peak_memory_bytes"] >= 200_000_000
    assert 200_000_000 <= found["written_bytes"] < 210_000_000
    assert 200_000_000 <= found["read_bytes"] < 290_000_000
    assert (found["sent_bytes"], found["received_bytes"]) == (3, 10)
    assert found["images"] is found["images_per_second"] is found["gpu_memory_bytes"] is None


def test_the_longest_loop_over_images_gives_the_rate() -> None:
    def main() -> None:
        list(console.track(range(6), 6, "validate"))
        list(console.track(range(7), 7, "bytes", unit="B"))
        timings.count_images(500, 10.0)
        next(iter(console.track(range(6), 6, "one that breaks off")))

    console.run("validate", main)
    assert (_read()["images"], _read()["images_per_second"]) == (500, 50.0)
    console.run("validate", lambda: deque(console.track(range(6), 6, "validate")).clear())
    assert _read()["images"] == 6


def test_a_stage_that_fails_leaves_what_the_last_good_run_took() -> None:
    console.run("validate", lambda: timings.count_images(1, 1.0))

    def fail() -> None:
        timings.count_images(2, 1.0)
        raise FileNotFoundError(2, "gone", "nope")

    with pytest.raises(SystemExit):
        console.run("validate", fail)
    assert _read()["images"] == 1
    found = timings.last("validate")
    assert found is not None
    assert found.images == 1
    assert timings.last("train") is None


def test_of_ranks_the_first_counts_the_images_and_their_launcher_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    def start_ranks() -> None:
        for rank in ("0", "1"):
            monkeypatch.setenv("RANK", rank)
            with timings.measured("train"):
                timings.count_images(10 + int(rank), 1.0)
        monkeypatch.delenv("RANK")
        os.write(os.open("out", os.O_CREAT | os.O_WRONLY), bytes(1_000_000))

    with timings.measured("train"):
        start_ranks()
    assert _read("train")["images"] == 10
    assert _read("train")["written_bytes"] >= 1_000_000
