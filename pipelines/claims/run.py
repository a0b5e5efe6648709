"""Trains and judges the cells of a scale, on as many devices as there are, and goes on where it was.

Every cell is trained by the train stage's own program in a folder of its own, `.local/claims/SCALE/CELL`, and goes on from its
checkpoint if it was killed. What is kept is its result file (`cells`), and in the folder the probabilities that ensembles need.
"""

import dataclasses
import io
import os
import queue
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from ruamel.yaml import YAML

from alexnet.errors import DataError
from alexnet.files.atomic import atomic_write, atomic_write_bytes
from alexnet.inference.pretrained import load_pretrained
from alexnet.loading.config import Views
from alexnet.shards.manifest import Manifest
from pipelines.claims import cells
from pipelines.claims.cells import Cell, Judged, Recipes, Result
from pipelines.config import tree
from pipelines.evaluation import inference
from pipelines.runtime import console, environment, launch
from pipelines.storage.dataset import open_dataset

_SHARDING = ("fetch", "validate", "shard")  # the stages of dvc.yaml that make a scale's data
_BATCH = 64  # images judged at a time
_SHOWN = 12  # lines of a failed program's output


class Runner:
    """The cells of one scale. `run` makes those that are not finished."""

    def __init__(self, name: str, recipes: Recipes, wanted: Mapping[Cell, set[Views]]) -> None:
        self.name, self.recipes, self.wanted = name, recipes, wanted
        self.place = (environment.SHARED / "claims" / name).absolute()
        self.averaged = {member for cell in wanted if len(cell.seeds) > 1 for member in cell.members}
        self._programs: set[subprocess.Popen[str]] = set()

    def finished(self, cell: Cell) -> bool:
        """Whether a result of today's parameters is there, judged by all protocols that claims need."""
        path = cells.path_of(self.name, cell)
        if not path.exists():
            return False
        result = cells.read(path)
        return result.recipe == self.recipes.digest(cell) and self.wanted[cell] <= result.judged.keys()

    def unfinished(self) -> list[Cell]:
        """What is left to do: cells without a result, and members whose probabilities an ensemble still needs."""
        left = [cell for cell in self.wanted if not self.finished(cell)]
        needed = {member for cell in left if len(cell.seeds) > 1 for member in cell.members}
        again = {member for member in needed if not self._probabilities(member).exists()}
        return [cell for cell in self.wanted if cell in left or cell in again]

    def run(self) -> None:
        """Makes what is left, and says how long the rest will take.

        Raises:
            DataError: a program failed; names it and its last lines.
            SystemExit: it was told to stop; every training has written a checkpoint.
        """
        left = self.unfinished()
        console.say(f"claims: {self.name}: {len(self.wanted) - len(left)} of {len(self.wanted)} cells are finished")
        if not left:
            return
        with self._stopping():
            self._make_shards()
            singles = [cell for cell in left if len(cell.seeds) == 1]
            devices: queue.SimpleQueue[str] = queue.SimpleQueue()
            names = _devices()
            for name in names:
                devices.put(name)
            began = time.monotonic()
            with ThreadPoolExecutor(len(names)) as pool:
                try:
                    running = [pool.submit(self._make, cell, devices) for cell in singles]
                    for done, each in enumerate(as_completed(running), 1):
                        rest = (time.monotonic() - began) / done * (len(singles) - done) / 60
                        console.say(f"claims: {each.result()}; {len(singles) - done} to go, about {rest:,.0f} minutes")
                        self._average()
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    self._stop()
                    raise
            self._average()

    def _make_shards(self) -> None:
        """Makes the data that all cells share, by the commands of dvc.yaml; not again for the same parameters."""
        recipe = self.recipes.params(Cell((1,), "base"))
        wanted = _yaml({name: recipe[name] for name in ("seed", "source", "validate", "shard")})
        made = self.place / "artifacts" / "made-of.yaml"
        if not made.exists() or made.read_bytes() != wanted:
            (self.place / "artifacts").mkdir(parents=True, exist_ok=True)
            atomic_write_bytes(self.place / "params.yaml", _yaml(recipe))
            stages = tree.read(Path("dvc.yaml"))["stages"]
            for stage in _SHARDING:
                console.say(f"claims: {self.name}: {stage}")
                command = [sys.executable, *shlex.split(stages[stage]["cmd"])[1:]]
                self._start(command, self.place, self.place / f"{stage}.log")
            with atomic_write(self.place / "artifacts" / "train.json") as file:
                self._manifest(1).write(file)  # training validates every epoch, so on little: a cell is judged at its end
            atomic_write_bytes(made, wanted)

    def _manifest(self, val_shards: int | None) -> Manifest:
        """The data of the scale, with the first so many shards of the validation split."""
        whole = Manifest.read(self.place / "artifacts" / "manifest.json")
        return dataclasses.replace(whole, splits=whole.splits | {"val": whole.splits["val"][:val_shards]})

    def _make(self, cell: Cell, devices: "queue.SimpleQueue[str]") -> str:
        """Trains and judges one network, on the next free device. Returns what came of it, for people."""
        device = devices.get()
        try:
            began = time.monotonic()
            folder = self.place / cell.name
            recipe = _yaml(self.recipes.params(cell))
            params = folder / "params.yaml"
            if not (folder / "model").exists() or not params.exists() or params.read_bytes() != recipe:
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
                atomic_write_bytes(params, recipe)
                data = self.place / "artifacts"
                arguments = [f"--manifest={data / 'train.json'}", f"--pixels={data / 'pixels.npz'}"]
                command = [sys.executable, "-m", "pipelines.train", *arguments, "--model=model", "--history=history.csv"]
                self._start(command, folder, folder / "train.log", device)
            result = self._judge(cell, device, began)
            result.write(cells.path_of(self.name, cell))
            shutil.rmtree(folder / "model")
            return f"{cell.name}: top-1 error {result.judged[min(result.judged)].top1_error:.2%}, {result.seconds:.0f} s"
        finally:
            devices.put(device)

    def _judge(self, cell: Cell, device: str, began: float) -> Result:
        """Every validation image by every protocol that a claim needs."""
        manifest = self._manifest(self.recipes.scale.judged_shards)
        folder = self.place / cell.name
        model = load_pretrained(folder / "model").to(torch.device(device))
        found: dict[str, list[Any]] = {views: [] for views in sorted(self.wanted[cell])}
        labels = []
        for batch in inference.load_batches(open_dataset(manifest, "val"), _BATCH, f"claims: {cell.name}", model.device):
            for views, parts in found.items():
                parts.append(model.probabilities(batch.images, views).numpy())  # type: ignore[arg-type]  # a str to mypy: a key of `wanted`
            labels.append(batch.labels.cpu().numpy().copy())
        arrays = {"labels": np.concatenate(labels)} | {views: np.concatenate(parts) for views, parts in found.items()}
        if cell in self.averaged:
            with atomic_write(self._probabilities(cell)) as part, part.open("wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]  # arrays by name
        lines = (folder / "history.csv").read_text(encoding="utf-8").splitlines()
        column = lines[0].split(",").index("train_top1_error")
        errors = tuple(float(line.split(",")[column]) for line in lines[1:])
        judged = _judge_arrays(arrays)
        return self._result(cell, manifest, errors, judged, time.monotonic() - began)

    def _average(self) -> None:
        """Judges every ensemble whose members are all there."""
        for cell in (cell for cell in self.wanted if len(cell.seeds) > 1 and not self.finished(cell)):
            files = [self._probabilities(member) for member in cell.members]
            if all(file.exists() for file in files) and all(map(self.finished, cell.members)):
                members = [dict(np.load(file)) for file in files]
                mean = {name: np.mean([each[name] for each in members], 0, dtype=np.float32) for name in self.wanted[cell]}
                manifest = self._manifest(self.recipes.scale.judged_shards)
                seconds = sum(cells.read(cells.path_of(self.name, member)).seconds for member in cell.members)
                judged = _judge_arrays(mean | {"labels": members[0]["labels"]})
                self._result(cell, manifest, (), judged, seconds).write(cells.path_of(self.name, cell))

    def _result(
        self, cell: Cell, manifest: Manifest, errors: tuple[float, ...], judged: dict[Views, Judged], seconds: float
    ) -> Result:
        images = sum(shard.samples for shard in manifest.splits["val"])
        recipe, data = self.recipes.digest(cell), cells.data_digest(manifest)
        return Result(cell.variant, cell.seeds, recipe, data, images, errors, judged, round(seconds, 1), environment.machine())

    def _probabilities(self, cell: Cell) -> Path:
        return self.place / cell.name / "probabilities.npz"

    def _start(self, command: list[str], folder: Path, log: Path, device: str | None = None) -> None:
        """Runs a stage's program in a folder, as DVC runs an experiment's, until its end; what it prints goes to a file.

        It prints into a pipe of this process: should this one be killed, it stops too, with a checkpoint.
        """
        checkout = str(Path.cwd())
        variables = {"DVC_ROOT": checkout, "DVC_EXP_BASELINE_REV": "claims", "PYTHONPATH": checkout}
        env = os.environ | variables | ({"ALEXNET_DEVICES": device} if device else {})
        env.pop("PYTHONDONTWRITEBYTECODE", None)  # a small cell is mostly its program's start, which cached bytecode halves
        pipe: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        with (
            subprocess.Popen(command, cwd=folder, env=env, start_new_session=True, **pipe) as program,
            log.open("w", encoding="utf-8") as file,
        ):
            self._programs.add(program)
            for line in program.stdout or ():
                file.write(line)
                file.flush()
            status = program.wait()
            self._programs.discard(program)
        if status == launch.STOPPED_STATUS:
            raise SystemExit(status)
        if status:
            last = " | ".join(log.read_text(encoding="utf-8").splitlines()[-_SHOWN:])
            raise DataError(f"{' '.join(command[1:3])} in {folder}: exit status {status}: {last}")

    def _stop(self) -> None:
        for program in list(self._programs):
            program.terminate()

    @contextmanager
    def _stopping(self) -> Iterator[None]:
        """SIGTERM ends it as Ctrl-C does."""

        def stop(number: int, _: object) -> None:
            raise SystemExit(128 + number)

        before = signal.signal(signal.SIGTERM, stop)
        try:
            yield
        finally:
            self._stop()
            signal.signal(signal.SIGTERM, before)


def _devices() -> list[str]:
    """One cell at a time on each: ALEXNET_DEVICES, else every GPU, else the CPU."""
    if "ALEXNET_DEVICES" in os.environ:
        return environment.devices()
    return [f"cuda:{number}" for number in range(torch.cuda.device_count())] or ["cpu"]


def _judge_arrays(arrays: Mapping[str, Any]) -> dict[Views, Judged]:
    labels = arrays["labels"]
    return {views: cells.judge(arrays[views], labels) for views in get_args(Views) if views in arrays}


def _yaml(whole: tree.Tree) -> bytes:
    text = io.BytesIO()
    YAML(typ="safe", pure=True).dump(whole, text)
    return text.getvalue()
