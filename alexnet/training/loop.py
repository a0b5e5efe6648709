"""The training loop: steps, validation after every epoch, checkpoints, and how training can end."""

import json
import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor

from alexnet.config import build, first_difference
from alexnet.distributed.team import Team
from alexnet.errors import DataError
from alexnet.loading.device import to_device
from alexnet.model.network import initial_weights
from alexnet.training.checkpoint import Checkpoints
from alexnet.training.schedule import rates_at
from alexnet.training.trainer import Batches, Trainer, TrainingJob

Json = dict[str, Any]


@dataclass(frozen=True)
class EpochRow:
    """One epoch in the history. Errors are fractions; losses are means over samples, in nats."""

    epoch: int
    step: int
    lr: float
    train_loss: float
    train_top1_error: float
    val_loss: float
    val_top1_error: float
    val_top5_error: float


@dataclass(frozen=True)
class Progress:
    """Where training is, after a step. loss: mean over this epoch so far."""

    epoch: int
    step: int
    steps_per_epoch: int
    loss: float


@dataclass(frozen=True)
class Callbacks:
    """What `fit` calls, and how often.

    on_step: after the losses of one or more steps were fetched. on_epoch: after validation. on_note: with a line about
    checkpoints. should_stop: after every step. fetch_loss_every: steps; each fetch waits for the device.
    """

    on_step: Callable[[Progress], None] = lambda progress: None
    on_epoch: Callable[[EpochRow], None] = lambda row: None
    on_note: Callable[[str], None] = lambda note: None
    should_stop: Callable[[], bool] = lambda: False
    checkpoint_seconds: float = 300.0
    fetch_loss_every: int = 1


class TrainingStopped(Exception):
    """Training was asked to stop; a checkpoint of this step is written."""

    def __init__(self, step: int) -> None:
        super().__init__(f"stopped at step {step}; its checkpoint is written, run again to go on from it")


class Diverged(DataError):
    """The loss or a weight is no longer finite."""


@dataclass
class LoopState:
    """Where training is; every checkpoint has it as JSON. loss, right, samples: sums over the epoch's steps so far."""

    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    loss: float = 0.0
    right: int = 0
    samples: int = 0
    history: tuple[EpochRow, ...] = ()


def fit(trainer: Trainer, train: Batches, val: Batches, checkpoints: Checkpoints, callbacks: Callbacks) -> list[EpochRow]:
    """Trains to the last epoch, from the newest checkpoint if there is one. Returns the history.

    Raises:
        TrainingStopped: `callbacks.should_stop` returned True on some rank; a checkpoint is written.
        Diverged: the loss or a weight became NaN or infinite; names the step and the last good checkpoint.
        DataError: the checkpoints belong to another job, or all are damaged.
    """
    team, config = trainer.team, trainer.job.train
    steps = {"train": train.steps_per_epoch, "validation": val.steps_per_epoch}
    team.check_equal_on_ranks({"job": _to_json(trainer.job), "steps": steps, "torch": torch.__version__})
    state = _resume(trainer, checkpoints, callbacks)
    with ThreadPoolExecutor(1, thread_name_prefix="checkpoint") as writer:
        loop = _Loop(trainer, checkpoints, callbacks, state, writer)
        while state.epoch < config.epochs:
            rates = rates_at(config.schedule, state.epoch, [row.val_top1_error for row in state.history])
            trainer.set_rates(rates)
            loop.train_epoch(train)
            scores = trainer.validate(val, callbacks.should_stop)
            if scores is None:  # the epoch's steps are done: on resuming, validation is what comes next
                loop.stop()
            train_scores = state.loss / state.samples, 1 - state.right / state.samples
            row = EpochRow(state.epoch, state.step, rates.weights, *train_scores, *scores)
            callbacks.on_epoch(row)
            state = loop.state = LoopState(state.step, state.epoch + 1, history=(*state.history, row))
            if team.agree(False, loop.save_is_due(), now=True)[1]:
                loop.save()
        loop.wait()
    return list(state.history)


class _Loop:
    """The steps of an epoch, and checkpoints written by a thread: training waits only for the copy of the weights."""

    def __init__(
        self, trainer: Trainer, checkpoints: Checkpoints, callbacks: Callbacks, state: LoopState, writer: ThreadPoolExecutor
    ) -> None:
        self.trainer, self.checkpoints, self.callbacks, self.state = trainer, checkpoints, callbacks, state
        self._writer = writer
        self._writing: Future[str] | None = None
        self._last_good = checkpoints.last() or "none yet"
        self._saved_at = time.monotonic()
        self._unfetched: list[tuple[Tensor, Tensor, int]] = []  # what Trainer.step returned, and the number of samples

    def train_epoch(self, train: Batches) -> None:
        """The steps of the epoch that are left."""
        state, team, steps = self.state, self.trainer.team, train.steps_per_epoch
        for number, batch in enumerate(to_device(train.epoch(state.epoch, state.step_in_epoch), self.trainer.device)):
            if number == 0:
                team.check_batch_split(batch.samples)
            self._unfetched.append((*self.trainer.step(batch, state.epoch, state.step), len(batch.labels)))
            state.step += 1
            state.step_in_epoch += 1
            is_last = state.step_in_epoch == steps
            stop, save = team.agree(self.callbacks.should_stop(), self.save_is_due(), now=is_last)
            if is_last or stop or save or len(self._unfetched) >= self.callbacks.fetch_loss_every:
                self._fetch_losses()
                self.callbacks.on_step(Progress(state.epoch, state.step_in_epoch, steps, state.loss / state.samples))
            if stop:
                self.stop()
            if save:
                self.save()

    def _fetch_losses(self) -> None:
        """Adds the losses of the last steps to the state. Raises Diverged when one is not finite."""
        losses, rights, counts = zip(*self._unfetched, strict=True)
        fetched = torch.stack([torch.stack(losses), torch.stack(rights).double()]).cpu()  # one wait for all of them
        sums = self.trainer.team.all_reduce_sum(torch.cat([fetched, torch.tensor([counts], dtype=torch.float64)]).T).tolist()
        for step, (loss, right, samples) in enumerate(sums, self.state.step - len(sums) + 1):
            if not math.isfinite(loss):
                self.wait()
                raise Diverged(_diverged(step, f"the loss is {loss}", self._last_good))
            self.state.loss += loss
            self.state.right += int(right)
            self.state.samples += int(samples)
        self._unfetched.clear()

    def save_is_due(self) -> bool:
        """Whether it is time for a checkpoint. Raises the error that the last one ended with."""
        if self._writing is not None and self._writing.done():
            self.wait()
        return time.monotonic() - self._saved_at >= self.callbacks.checkpoint_seconds

    def save(self) -> None:
        """Starts to write a checkpoint; all ranks call it at the same step."""
        self.wait()
        tensors = self.trainer.tensors()
        if self.trainer.team.is_rank0:
            state = {**asdict(self.state), "job": _to_json(self.trainer.job)}
            self._writing = self._writer.submit(_write, self.checkpoints, tensors, state, self._last_good)
        self._saved_at = time.monotonic()

    def wait(self) -> None:
        """Returns when the last checkpoint is on the disk, or raises its error."""
        if self._writing is not None:
            self._last_good = self._writing.result()
            self._writing = None

    def stop(self) -> NoReturn:
        """Writes a checkpoint and raises TrainingStopped."""
        self.save()
        self.wait()
        raise TrainingStopped(self.state.step)


def _write(checkpoints: Checkpoints, tensors: Mapping[str, Tensor], state: Json, last_good: str) -> str:
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise Diverged(_diverged(state["step"], f"{name} is no longer finite", last_good))
    return checkpoints.save(state["step"], tensors, state)


def _diverged(step: int, what: str, last_good: str) -> str:
    return f"step {step}: {what}; lower train.schedule's rates; last good checkpoint: {last_good}"


def _to_json(job: TrainingJob) -> Json:
    """The job as plain JSON values, to be compared with a checkpoint's."""
    return json.loads(json.dumps(asdict(job)))  # type: ignore[no-any-return]  # json is untyped


def _resume(trainer: Trainer, checkpoints: Checkpoints, callbacks: Callbacks) -> LoopState:
    """Loads the newest checkpoint, or the start values where there is none."""
    job = trainer.job
    owner, name, tree = _newest(trainer.team, checkpoints, callbacks)
    if not name:
        trainer.network.load_full(initial_weights(job.model, job.seed))
        return LoopState()
    _check_same_job(tree.pop("job"), _to_json(job))
    with checkpoints.open(name) as tensors:
        if unlike := trainer.team.all_gather_json(trainer.unlike(tensors) if tensors else "")[owner]:
            raise DataError(f"{checkpoints.folder / name}: {unlike}; remove the folder of checkpoints to begin again")
        trainer.load(trainer.team.broadcast_state(tensors, owner))
    state = build(LoopState, tree, name)
    callbacks.on_note(f"resumed at step {state.step}, epoch {state.epoch}" + (f", from rank {owner}" if owner else ""))
    return state


def _newest(team: Team, checkpoints: Checkpoints, callbacks: Callbacks) -> tuple[int, str, Json]:
    """A rank that has the newest undamaged checkpoint, its name and its state. The name is empty where there is none.

    Ranks on other machines have folders of their own: a launcher may have moved rank 0 to another machine.
    """
    name, tree, notes = team.broadcast_from_rank0(lambda: [*(checkpoints.newest() or ("", {})), checkpoints.set_aside])
    for note in notes:
        callbacks.on_note(f"checkpoint set aside: {note}")
    newer = ("", {}) if team.is_rank0 else checkpoints.newest(after=name) or ("", {})
    found = [(name, tree), *team.all_gather_json(newer)[1:]]
    owner = max(range(len(found)), key=lambda rank: found[rank][0])  # the first of equals
    return owner, *found[owner]


def _check_same_job(saved_job: Json, given_job: Json) -> None:
    if found := first_difference(saved_job, given_job):
        name, saved, given = found
        raise DataError(
            f"{name}: is {given!r}, but the checkpoint was made with {saved!r}; put it back, or remove the checkpoints"
        )
