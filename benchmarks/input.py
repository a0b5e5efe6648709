"""Samples per second of the input path, beside the loaders people use, on the same 256-pixel images.

    python -m benchmarks.input                        # images cut from scikit-learn's two photographs
    python -m benchmarks.input --images FOLDER        # cut from a folder of photographs
    python -m benchmarks.input --only ours,imagefolder --rounds 3

Every loader lives in a process of its own and is asked for an epoch in turn, so that all see the same machine in every round;
ratios are paired round by round. A peer whose package is missing is left out: run this with the Python of an environment that
has it (FFCV needs Debian's libopencv-dev, libturbojpeg0-dev, pkg-config and g++; DALI is nvidia-dali-cuda130; litdata, grain
and torchdata go by their names). Also: time to the first batch and to resume in the middle of an epoch of ImageNet's size,
memory, and how many cores feed what.
"""

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from alexnet.shards import Shard
from alexnet.tarindex import index_tar
from benchmarks import corpus, timing

LIMIT, OURS = "limit", "ours"
_IMAGENET_SHARDS, _IMAGENET_SAMPLES = 1024, 1251


class Child:
    """One loader with its workers, in a process of its own, waiting to be asked for an epoch."""

    def __init__(self, name: str, workers: int, folder: Path) -> None:
        self.name, self.workers = name, workers
        command = [
            sys.executable,
            "-m",
            "benchmarks.input",
            "--serve",
            name,
            "--workers",
            str(workers),
            "--folder",
            str(folder),
        ]
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - it lives as long as the child
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "DO_NOT_TRACK": "1"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, env=environment
        )

    def answer(self) -> dict[str, float]:
        """Its next answer. Raises when it ended instead."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return dict(json.loads(line))
        self.log.seek(0)
        raise RuntimeError(self.log.read().strip().rsplit("\n", 1)[-1])

    def epoch(self) -> dict[str, float]:
        """An epoch: its samples, wall seconds, and CPU seconds of the whole family."""
        assert self._process.stdin is not None
        before = _cpu_seconds(self._process.pid)
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        answer = self.answer()
        return answer | {"cpu": _cpu_seconds(self._process.pid) - before, "mib": _memory_mib(self._process.pid)}

    def end(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()


def serve(name: str, workers: int, folder: Path) -> None:
    """The child's side: an epoch to warm up, then one for every line that comes."""
    import torch

    from benchmarks.input_peers import PEERS

    torch.set_num_threads(1)
    epoch = PEERS[name][1](folder, corpus.make(None, 0, 0, folder), workers)
    for _ in iter_and_lines():
        start = time.perf_counter()
        samples = sum(epoch())
        print(json.dumps({"samples": samples, "wall": time.perf_counter() - start}), flush=True)


def iter_and_lines() -> Iterator[None]:
    """Once at once, then once for every line of the standard input."""
    yield
    for _ in sys.stdin:
        yield


def measure(names: list[str], workers: int, folder: Path, rounds: int) -> dict[str, Any]:
    """Interleaved epochs of all the loaders that start."""
    children, missing = [], {}
    for name in names:
        child = Child(name, workers, folder)
        try:
            child.answer()
            children.append(child)
        except RuntimeError as error:
            missing[name] = str(error)
    found: dict[str, list[dict[str, float]]] = {child.name: [] for child in children}
    for number in range(rounds):
        for child in children[number % len(children) :] + children[: number % len(children)]:
            found[child.name].append(child.epoch())
    for child in children:
        child.end()
    return {"loaders": {name: _summary(found, name) for name in found}, "left_out": missing}


def _summary(found: dict[str, list[dict[str, float]]], name: str) -> dict[str, float]:
    rounds = found[name]

    def middle(values: list[float]) -> float:
        return statistics.median(values)

    summary: dict[str, float] = {
        "samples_per_second": round(middle([r["samples"] / r["wall"] for r in rounds])),
        "best": round(max(r["samples"] / r["wall"] for r in rounds)),
        "samples_per_cpu_second": round(middle([r["samples"] / r["cpu"] for r in rounds])),
        "mib": round(rounds[-1]["mib"]),
    }
    for other, label, clock in (
        (OURS, "ours_is_faster_by", "wall"),
        (OURS, "ours_is_cheaper_by", "cpu"),
        (LIMIT, "share_of_limit", "wall"),
        (LIMIT, "share_of_limit_by_cpu", "cpu"),
    ):
        if other in found and other != name:
            pairs = [(a[clock] / a["samples"], b[clock] / b["samples"]) for a, b in zip(found[other], rounds, strict=True)]
            summary[label] = round(middle([theirs / its if other == LIMIT else its / theirs for theirs, its in pairs]), 3)
    return summary


# Time to the first batch, to resume, and memory, at ImageNet's size.


def imagenet_size(folder: Path) -> dict[str, float]:
    """Seconds to the first batch of an epoch and from its middle, over 1,281,024 samples in 1,024 cached shards.

    One real shard stands for all, under as many digests: what is read and decoded is real, the disk's first read is not in it.
    """
    from alexnet.cache import ShardCache
    from alexnet.loader import Loader
    from alexnet.samples import Samples
    from alexnet.verified import map_file, write_index

    (made,) = corpus.make(None, _IMAGENET_SAMPLES, 1, folder / "one")
    cache = folder / "imagenet"
    cache.mkdir()
    path = folder / "one" / "shards" / made.name
    mapped = map_file(path)
    assert mapped is not None
    index = index_tar(mapped[0], made.name)
    shards = [replace(made, name=f"train-{n:06}.tar", sha256=f"{n:064x}") for n in range(_IMAGENET_SHARDS)]
    for shard in shards:
        (cache / f"{shard.sha256}.tar").hardlink_to(path)
    _, stamp = mapped
    for shard in shards:
        write_index(cache / f"{shard.sha256}.json", index, stamp)

    def never(name: str, start: int, size: int) -> Iterator[bytes]:
        raise AssertionError(f"{name} is cached; {size} bytes of it were asked for, from byte {start} on")

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    found: dict[str, float] = {"samples": _IMAGENET_SHARDS * _IMAGENET_SAMPLES}
    for label, first_step in (("seconds_to_first_batch", 0), ("seconds_to_resume_mid_epoch", 5000)):
        start = time.perf_counter()
        samples = Samples(shards, ShardCache(cache, never), side_px=corpus.SIDE_PX, classes=corpus.CLASSES)
        epoch = Loader(samples, 128, seed=1, shuffle=True, workers=2).epoch(7, first_step)
        next(epoch)
        found[label] = round(time.perf_counter() - start, 2)
        for _ in range(20):
            next(epoch)
        found[f"{label}_and_20_more"] = round(time.perf_counter() - start, 2)
        epoch.close()  # type: ignore[attr-defined]
    return found | {"mib": round(_memory_mib(os.getpid()))}


def indexing(folder: Path, shards: list[Shard], rounds: int) -> dict[str, float]:
    """Samples a second and core that the tar index lists, beside WebDataset's iteration and tarfile's."""
    import tarfile

    import webdataset as wds

    paths = [folder / "shards" / shard.name for shard in shards]

    def by_us() -> None:
        for path in paths:
            index_tar(path.read_bytes(), path.name)

    def by_webdataset() -> None:
        for _ in wds.WebDataset([str(path) for path in paths], shardshuffle=False):
            pass

    def by_tarfile() -> None:
        for path in paths:
            with tarfile.open(path) as tar:
                for member in tar:
                    tar.extractfile(member).read()  # type: ignore[union-attr]

    seconds = timing.interleave({"ours": by_us, "webdataset": by_webdataset, "tarfile": by_tarfile}, rounds)
    total = sum(shard.samples for shard in shards)
    rates = {f"{name}_samples_per_second": round(total / statistics.median(times)) for name, times in seconds.items()}
    return rates | {"ours_is_faster_than_webdataset_by": round(timing.ratio(seconds["webdataset"], seconds["ours"]), 1)}


def feeds(rate_per_core: float, whole_per_core: float) -> dict[str, Any]:
    """How many cores feed what. The steps' rates are estimates for an H100 in bfloat16; nothing here was run on one."""
    needed = {
        "eager step, estimated (images/s)": 12_000,
        "fused norms and a CUDA graph, batch 128, estimated": 35_000,
        "the same, upper estimate": 55_000,
        "two H100s, upper estimate": 110_000,
    }
    return {
        "images_per_second_and_core_cropped_here": round(rate_per_core),
        "images_per_second_and_core_whole_here": round(whole_per_core),
        "cores": {name: round(rate / whole_per_core, 1) for name, rate in needed.items()},
        "gigabytes_per_second_at_30_kB": {name: round(rate * 30e3 / 1e9, 2) for name, rate in needed.items()},
    }


def _cpu_seconds(pid: int) -> float:
    """CPU seconds of a process, its living children and those it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    own = sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")
    return own + _over_children(_cpu_seconds, pid)


def _memory_mib(pid: int) -> float:
    """Memory of a process and its children; pages that several of them share are counted once."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    own = next(int(line.split()[1]) for line in rollup if line.startswith("Pss:")) / 1024
    return own + _over_children(_memory_mib, pid)


def _over_children(measured: Callable[[int], float], pid: int) -> float:
    """Summed over the children that live; one may end while we look."""
    total = 0.0
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for child in path.read_text().split():
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    total += measured(int(child))
    return total


def main() -> None:
    """Measures and writes results/input.json."""
    from benchmarks.input_peers import PEERS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="a folder of photographs; scikit-learn's two unless given")
    parser.add_argument("--samples", type=int, default=2560)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", help=f"loaders, by commas: {', '.join(PEERS)}")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.serve, args.workers, args.folder)
        return
    names = args.only.split(",") if args.only else list(PEERS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shards = corpus.make(args.images, args.samples, 4, folder)
        corpus.make(args.images, _IMAGENET_SAMPLES, 1, folder / "one")
        by_workers = {workers: measure(names, workers, folder, args.rounds) for workers in (1, 2)}
        loaders = by_workers[1]["loaders"]
        result: dict[str, Any] = {
            "load_average": [round(load, 1) for load in os.getloadavg()],
            "corpus": {
                "samples": args.samples,
                "mean_bytes_in_tar": round(sum(shard.bytes for shard in shards) / args.samples),
                "from": "a folder of photographs" if args.images else "scikit-learn's two photographs",
            },
            "what": {name: PEERS[name][0] for name in names},
            "one_worker": by_workers[1],
            "two_workers": by_workers[2],
            "tar_index": indexing(folder, shards, args.rounds),
            "imagenet_size": imagenet_size(folder),
        }
        if "ours-whole" in loaders and OURS in loaders:
            rates = [loaders[which]["samples_per_cpu_second"] for which in (OURS, "ours-whole")]
            result["feeds"] = feeds(*rates)
    timing.write("input", result)


if __name__ == "__main__":
    main()
