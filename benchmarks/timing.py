"""Shared by the benchmarks: interleaved timing, paired ratios, a description of the machine, results files."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def interleave(candidates: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 1) -> dict[str, list[float]]:
    """Wall seconds of each candidate in each round. All run once in a round, in rotating order, so that load hits all alike."""
    for _ in range(warmup):
        for run in candidates.values():
            run()
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds):
        names = list(candidates)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            start = time.perf_counter()
            candidates[name]()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(slow: list[float], fast: list[float]) -> float:
    """The median over rounds of slow / fast."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def machine() -> dict[str, Any]:
    """The CPU, cores, GPU and versions that figures are measured with."""
    found = {"cpu": _cpu(), "cores": len(os.sched_getaffinity(0)), "python": platform.python_version()}
    import torch

    found["torch"] = torch.__version__
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return platform.processor()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    named = {name.strip(): text.strip() for name, text in fields.items()}
    return f"{named.get('model name', platform.machine())} (family {named.get('cpu family')}, model {named.get('model')})"


def write(name: str, result: dict[str, Any]) -> None:
    """Prints a result and writes it to results/NAME.json, or with a GPU, such as an H200, to results/NAME-nvidia-h200.json."""
    found = machine()
    text = json.dumps({"machine": found, **result}, indent=1)
    print(text)
    RESULTS.mkdir(exist_ok=True)
    gpu = f"-{found['gpu'].lower().replace(' ', '-')}" if "gpu" in found else ""
    (RESULTS / f"{name}{gpu}.json").write_text(text + "\n", encoding="utf-8")
