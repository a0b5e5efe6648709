"""Samples per second of the input path, beside the loaders people use, on the same 256-pixel images.

    python -m benchmarks.input                        # images cut from scikit-learn's two photographs
    python -m benchmarks.input --images FOLDER        # cut from a folder of photographs
    python -m benchmarks.input --only ours,imagefolder --rounds 3

Every loader lives in a process of its own and is asked for an epoch in turn, so that all see the same machine in every round;
ratios are paired round by round. An epoch is measured from its ninth batch on: what a loader keeps ready between epochs is
over by then. An epoch during which others used more than a twentieth of the machine is repeated twice at most; a round with one
that stayed so counts only where there is no better one. A peer whose package is missing is left out: run this with the Python
of an environment that has it (FFCV needs Debian's libopencv-dev, libturbojpeg0-dev, pkg-config and g++; DALI is
nvidia-dali-cuda130; litdata, grain and torchdata go by their names). Also: time to the first batch and to resume in the middle
of an epoch of ImageNet's size, memory, and how many cores feed what.
"""

import argparse
import contextlib
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alexnet.shards.manifest import Shard
from alexnet.shards.tar import index_tar
from benchmarks import corpus, timing

LIMIT, OURS = "limit", "ours"
_READY = 8  # batches: more than any loader keeps ready between two epochs
_QUIET = 0.05  # of the machine: more than that by others disturbs an epoch
_TRIES = 3
_IMAGENET_SHARDS, _IMAGENET_SAMPLES = 1024, 1251
_ESTIMATES = [  # until a GPU has been measured
    ("one H100, bf16, fused norms and a CUDA graph, batch 128: an estimate, nothing was measured", 35_000.0, 1),
    ("a tower pair of H100s at 1.5 times that: an estimate, nothing was measured", 52_500.0, 2),
]


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
        self.log = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - it lives as long as the child
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
        """An epoch that nobody disturbed, or the last try at one, see Spent; and the family's memory."""
        assert self._process.stdin is not None
        for _ in range(_TRIES):
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
            answer = self.answer()
            if answer["others"] <= _QUIET:
                break
        return answer | {"mib": _memory_mib(self._process.pid)}

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

    from benchmarks.input_peers import BATCH, PEERS

    torch.set_num_threads(1)
    shards = corpus.make(None, 0, 0, folder)
    ready = min(_READY, sum(shard.samples for shard in shards) // BATCH // 2)
    epoch = PEERS[name][1](folder, shards, workers)
    for _ in iter_and_lines():
        print(json.dumps(_measured(epoch(), ready)), flush=True)


def _measured(batches: Iterator[int], ready: int) -> dict[str, float]:
    """Samples of the batches after the first so many, and what they cost: wall seconds, CPU seconds, the share of others."""
    for _ in itertools.islice(batches, ready):
        pass
    before = Spent.now()
    samples = sum(batches)
    spent = Spent.now() - before
    return {"samples": samples, "wall": spent.wall, "cpu": spent.family, "others": spent.others}


@dataclass(frozen=True)
class Spent:
    """Seconds: by the clock, of CPU by this process and its living descendants, of CPU by the whole machine."""

    wall: float
    family: float
    machine: float

    @classmethod
    def now(cls) -> "Spent":
        """Since each of them began to count."""
        return cls(time.perf_counter(), time.process_time() + _over_children(_cpu_seconds, os.getpid()), _busy_seconds())

    def __sub__(self, other: "Spent") -> "Spent":
        return Spent(self.wall - other.wall, self.family - other.family, self.machine - other.machine)

    @property
    def others(self) -> float:
        """The share of the machine that others used."""
        cores = os.cpu_count() or 1
        return max(0.0, self.machine - self.family) / (self.wall * cores)


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
        print(f"{workers} workers: round {number + 1} of {rounds} is over", file=sys.stderr)
    for child in children:
        child.end()
    others = [max(epochs[number]["others"] for epochs in found.values()) for number in range(rounds)]
    quiet = [number for number in range(rounds) if others[number] <= _QUIET]
    used = {name: [epochs[number] for number in quiet or range(rounds)] for name, epochs in found.items()}
    return {
        "rounds": rounds,
        "undisturbed_rounds": len(quiet),
        "share_of_the_machine_used_by_others": [round(share, 3) for share in others],
        "loaders": {name: _summary(used, name) for name in used},
        "left_out": missing,
    }


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
    from alexnet.loading.dataset import ShardDataset
    from alexnet.loading.loader import Loader
    from alexnet.loading.sampler import BatchSampler
    from alexnet.shards.cache import ShardCache
    from alexnet.shards.verify import map_file, write_index

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
        samples = ShardDataset(shards, ShardCache(cache, never), side_px=corpus.SIDE_PX, classes=corpus.CLASSES)
        epoch = Loader(samples, BatchSampler(128, seed=1, shuffle=True), workers=2).epoch(7, first_step)
        next(epoch)
        found[label] = round(time.perf_counter() - start, 2)
        for _ in range(20):
            next(epoch)
        found[f"{label}_and_20_more"] = round(time.perf_counter() - start, 2)
        epoch.close()
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


def feeds(per_core: float) -> dict[str, Any]:
    """How many of this machine's cores feed which training step with whole images.

    Both ranks of a tower pair decode every image: what they train on counts twice for the cores, once for the store.
    """
    return {
        "images_per_second_and_core_here": round(per_core),
        "steps": [
            {
                "step": step,
                "images_per_second": round(rate),
                "cores": round(decoded * rate / per_core, 1),
                "gigabytes_per_second_at_30_kB": round(rate * 30e3 / 1e9, 2),
            }
            for step, rate, decoded in measured_steps() or _ESTIMATES
        ],
    }


def measured_steps(results: Path = timing.RESULTS) -> list[tuple[str, float, int]]:
    """What results/train_step*.json and two_gpu*.json say of GPUs: the step, its images a second, how often each is decoded."""
    found: list[tuple[str, float, int]] = []
    for path in sorted(results.glob("train_step*.json")):
        tree = json.loads(path.read_text(encoding="utf-8"))
        if gpu := tree["machine"].get("gpu"):
            found += [
                (f"{gpu}, {row['precision']}, batch {row['batch']}, measured", row["images_per_second"]["ours"], 1)
                for row in tree["rows"]
                if row["images_per_second"].get("ours")
            ]
    for path in sorted(results.glob("two_gpu*.json")):
        tree = json.loads(path.read_text(encoding="utf-8"))
        if gpu := tree["machine"].get("gpu"):
            found += [
                (f"{name} on {gpu}, {row['precision']}, batch {row['batch']}, measured", form["images_per_second"], decoded)
                for row in tree["results"]
                for name, decoded in (("both towers in one process", 1), ("a process a tower", 2))
                if (form := row["forms"].get(name))
            ]
    return found


def _cpu_seconds(pid: int) -> float:
    """CPU seconds of a process's living threads and its living children, to the nanosecond."""
    own = sum(int(path.read_text(encoding="utf-8").split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9
    return own + _over_children(_cpu_seconds, pid)


def _busy_seconds() -> float:
    """CPU seconds of the whole machine, those included that a hypervisor gave to others."""
    user, nice, system, _, _, irq, softirq, steal, *_ = map(
        int, Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _memory_mib(pid: int) -> float:
    """Memory of a process and its children; pages that several of them share are counted once."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    own = next(int(line.split()[1]) for line in rollup if line.startswith("Pss:")) / 1024
    return own + _over_children(_memory_mib, pid)


def _over_children(measured: Callable[[int], float], pid: int) -> float:
    """Summed over the children that live; one may end while we look."""
    total = 0.0
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for child in path.read_text(encoding="utf-8").split():
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    total += measured(int(child))
    return total


def main() -> None:
    """Measures and writes results/input.json."""
    from benchmarks.input_peers import PEERS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="a folder of photographs; scikit-learn's two unless given")
    parser.add_argument("--samples", type=int, default=5120)
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
        if OURS in loaders:
            result["feeds"] = feeds(loaders[OURS]["samples_per_cpu_second"])
    timing.write("input", result)


if __name__ == "__main__":
    main()
