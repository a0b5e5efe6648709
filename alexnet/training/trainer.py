"""The training loop: steps, validation after every epoch, checkpoints, and a clear end for every way it can end."""

import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional

from alexnet.distributed.team import Piece, Team
from alexnet.errors import DataError
from alexnet.images.statistics import PixelStatistics
from alexnet.loading.augment import Augment, center, center_crop
from alexnet.loading.device import to_device
from alexnet.loading.loader import Batch, EncodedBatch
from alexnet.model.architecture import ModelConfig
from alexnet.model.network import AlexNet, DropoutKey, full_shapes, initial_weights
from alexnet.randomness.keys import random_key
from alexnet.training.checkpoint import Checkpoints
from alexnet.training.schedule import Rates, TrainConfig, rates_at
from alexnet.training.sgd import PaperSgd

State = dict[str, Any]
Seen = tuple[Tensor, Tensor, int]  # sum of losses and number right, on the device, and number of samples


@runtime_checkable
class Batches(Protocol):
    """Batches of one split, in an order that is a function of the epoch alone."""

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches, the last and smaller one included."""

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch | EncodedBatch]:
        """The batches of an epoch from a step on."""


@dataclass(frozen=True)
class TrainingJob:
    """All that determines the outcome. data: digest of what is trained on."""

    seed: int
    model: ModelConfig
    train: TrainConfig
    data: str


@dataclass(frozen=True)
class Row:
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
    """What the caller wants to know and decide while training goes on."""

    on_step: Callable[[Progress], None] = lambda progress: None
    on_epoch: Callable[[Row], None] = lambda row: None
    on_note: Callable[[str], None] = lambda note: None
    should_stop: Callable[[], bool] = lambda: False
    checkpoint_seconds: float = 300.0
    fetch_loss_every: int = 1  # steps between looks at the loss; a look waits for the device


class TrainingStopped(Exception):
    """Training was asked to stop; a checkpoint of this step is written."""

    def __init__(self, step: int) -> None:
        super().__init__(f"stopped at step {step}; its checkpoint is written, run again to go on from it")


class Diverged(DataError):
    """The loss is no longer a number."""


class Trainer:
    """A network in training: one step, one validation, one state. `fit` calls it in order."""

    def __init__(
        self, job: TrainingJob, network: AlexNet, pixels: PixelStatistics, device: torch.device, team: Team | None = None
    ) -> None:
        self.job, self.network, self.device = job, network, device
        self.team = team or Team()
        self.team.register_parameters([parameter for _, _, parameter in network.parameter_slices()])
        mean = torch.from_numpy(pixels.mean_image)
        self.augment = Augment(
            job.train.augment, mean, torch.from_numpy(pixels.eigenvectors), torch.from_numpy(pixels.eigen_std), job.seed
        )
        self.augment.mean = self.augment.mean.to(device)
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # shapes come again and again: the fastest way is looked for once
        self.mean = center(mean).to(device)
        self.optimizer = PaperSgd(_groups(network, job.train), momentum=job.train.momentum)
        self._moved, self._samples = 0, 0
        self._full: dict[str, Tensor] = {}  # stays between checkpoints: to take new memory costs more than to fill it

    @property
    def bytes_per_sample(self) -> float:
        """What each tower held here sent to the other for every sample trained on, both ways."""
        return self._moved / max(1, self._samples) / len(self.network.parts)

    def set_rates(self, rates: Rates) -> None:
        """Learning rates for the steps to come."""
        for group in self.optimizer.param_groups:
            group["lr"] = getattr(rates, group["name"])

    def step(self, batch: Batch, epoch: int, number: int) -> tuple[Tensor, Tensor]:
        """One update, by a batch on the device. Returns the sum of this replica's losses and the number right, there too."""
        self.optimizer.zero_grad(set_to_none=True)
        before = self.network.link.bytes_sent
        if len(batch.labels):
            losses, right = self._losses(batch, epoch, number)
            self.team.backward(losses)
        else:
            losses, right = torch.zeros(0, device=self.device), torch.zeros((), dtype=torch.int64, device=self.device)
            self.team.backward(None)
        self.optimizer.step()
        self._moved += self.network.link.bytes_sent - before
        self._samples += len(batch.labels)
        return losses.detach().double().sum(), right

    def _losses(self, batch: Batch, epoch: int, number: int) -> tuple[Tensor, Tensor]:
        crops = self.augment(batch.images, batch.samples, epoch).to(self._dtype())
        dropout = DropoutKey(random_key(self.job.seed, "dropout", number), batch.samples)
        logits = self._logits(crops, dropout)
        right = (logits.detach().argmax(1) == batch.labels).sum()
        return functional.cross_entropy(logits, batch.labels, reduction="none"), right

    @torch.no_grad()
    def validate(self, batches: Batches, should_stop: Callable[[], bool] = lambda: False) -> tuple[float, float, float] | None:
        """Mean loss, top-1 and top-5 error of the center crop, over all replicas; None when the team stopped in between."""
        sums, count = torch.zeros(3, dtype=torch.float64, device=self.device), 0
        for number, batch in enumerate(to_device(batches.epoch(0), self.device)):
            if number == 0:
                self.team.check_batch_split(batch.samples)
            if len(batch.labels):
                sums += self._scores(batch)
                count += len(batch.labels)
            if self.team.agree(should_stop(), False)[0]:
                return None
        if self.team.agree(should_stop(), False, now=True)[0]:
            return None
        here = torch.tensor([*sums.tolist(), count], dtype=torch.float64)
        loss, wrong1, wrong5, whole = self.team.all_reduce_sum(here).tolist()
        return loss / whole, wrong1 / whole, wrong5 / whole

    def _scores(self, batch: Batch) -> Tensor:
        """Sum of losses, number wrong by the best guess, and by the best five; on the device, for nobody to wait."""
        labels = batch.labels
        crops = center_crop(batch.images, self.mean).to(self._dtype())
        logits = self._logits(crops, None)
        loss = functional.cross_entropy(logits, labels, reduction="none").double().sum()
        best = logits.topk(min(5, logits.shape[1]), 1).indices == labels[:, None]
        wrong = torch.stack([~best[:, 0], ~best.any(1)]).sum(1).double()
        return torch.cat([loss[None], wrong])

    def _logits(self, crops: Tensor, dropout: DropoutKey | None) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.job.train.precision == "bf16"):
            logits = self.network(crops, dropout)
        return logits if logits.dtype is torch.float64 else logits.float()  # type: ignore[no-any-return]  # Module.__call__

    def _dtype(self) -> torch.dtype:
        return next(self.network.parameters()).dtype

    def tensors(self) -> dict[str, Tensor]:
        """Full weights and velocities, on the CPU; on rank 0 only. Every rank calls it at the same step.

        The next call overwrites them.
        """
        own: list[Piece] = []
        for name, where, parameter in self.network.parameter_slices():
            own.append((name, where, parameter.detach()))
            own.append((f"velocity/{name}", where, self.optimizer.velocity(parameter)))
        if not self.team.is_rank0:
            mine = {name for name, _ in layout(self.job.model, self.team.tower_ranges or ())}
            self.team.gather_state({}, [piece for piece in own if piece[0].removeprefix("velocity/") in mine], [])
            return {}
        if not self._full:
            for name, shape in full_shapes(self.job.model).items():
                for kind in ("", "velocity/"):
                    self._full[f"{kind}{name}"] = torch.empty(shape, dtype=self._dtype())
        held = self.team.tower_ranges or [(0, self.job.model.towers)]
        others = [(tower, tower + 1) for tower in range(self.job.model.towers) if not any(a <= tower < b for a, b in held)]
        elsewhere = [(f"{kind}{name}", where) for name, where in layout(self.job.model, others) for kind in ("", "velocity/")]
        self.team.gather_state(self._full, own, elsewhere)
        return self._full

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Any]) -> None:
        """Takes up the tensors of a checkpoint, written by any form."""
        self.network.load_full(tensors)
        for name, where, parameter in self.network.parameter_slices():
            self.optimizer.velocity(parameter).copy_(tensors[f"velocity/{name}"][where])


def _groups(network: AlexNet, config: TrainConfig) -> list[State]:
    """Parameters by learning rate and decay, named as in Rates."""
    groups: dict[str, State] = {
        "conv1": {"weight_decay": config.weight_decay},
        "weights": {"weight_decay": config.weight_decay},
        "conv1_biases": {"weight_decay": config.bias_weight_decay},
        "biases": {"weight_decay": config.bias_weight_decay},
    }
    for name, _, parameter in network.parameter_slices():
        layer, kind = name.split(".")
        of_all, of_conv1 = ("weights", "conv1") if kind == "weight" else ("biases", "conv1_biases")
        groups[of_conv1 if layer == "conv1" else of_all].setdefault("params", []).append(parameter)
    return [{"name": name, "lr": 0.0, **group} for name, group in groups.items() if "params" in group]


def fit(trainer: Trainer, train: Batches, val: Batches, checkpoints: Checkpoints, watch: Callbacks) -> list[Row]:
    """Trains to the last epoch, from the newest checkpoint if there is one. Returns the history.

    Raises:
        TrainingStopped: `watch.should_stop` said so; a checkpoint is written.
        Diverged: the loss became NaN or infinite; names the step and the last good checkpoint.
        DataError: the checkpoints belong to another run, or all are damaged.
    """
    team = trainer.team
    steps = {"train": train.steps_per_epoch, "validation": val.steps_per_epoch}
    team.check_equal_on_ranks({"job": _identity(trainer.job), "steps": steps, "torch": torch.__version__})
    state = _begin(trainer, checkpoints, watch)
    history = [Row(**row) for row in state["history"]]
    saver = _Saver(trainer, checkpoints, watch)
    for epoch in range(state["epoch"], trainer.job.train.epochs):
        rates = rates_at(trainer.job.train.schedule, epoch, [row.val_top1_error for row in history])
        trainer.set_rates(rates)
        sums = _epoch(trainer, train, state, saver, watch)
        scores = trainer.validate(val, watch.should_stop)
        if scores is None:  # the epoch's steps are done: on resuming, validation is what comes next
            saver.save(state)
            saver.wait()
            raise TrainingStopped(state["step"])
        loss, top1, top5 = scores
        row = Row(
            epoch, state["step"], rates.weights, sums.loss / sums.samples, 1 - sums.right / sums.samples, loss, top1, top5
        )
        history.append(row)
        watch.on_epoch(row)
        state.update(epoch=epoch + 1, step_in_epoch=0, loss=0.0, right=0, samples=0, history=[asdict(r) for r in history])
        if team.agree(False, saver.due(), now=True)[1]:
            saver.save(state)
    saver.wait()
    return history


@dataclass
class _Sums:
    """Over the steps of an epoch so far."""

    loss: float
    right: int
    samples: int


def _epoch(trainer: Trainer, train: Batches, state: State, saver: "_Saver", watch: Callbacks) -> _Sums:
    sums = _Sums(state["loss"], state["right"], state["samples"])
    unseen: list[Seen] = []
    team = trainer.team
    epoch, steps = state["epoch"], train.steps_per_epoch
    for number, batch in enumerate(to_device(train.epoch(epoch, state["step_in_epoch"]), trainer.device)):
        if number == 0:
            team.check_batch_split(batch.samples)
        unseen.append((*trainer.step(batch, epoch, state["step"]), len(batch.labels)))
        state["step"] += 1
        state["step_in_epoch"] += 1
        last = state["step_in_epoch"] == steps
        stop, save = team.agree(watch.should_stop(), saver.due(), now=last)
        if last or stop or save or len(unseen) >= watch.fetch_loss_every:
            _look(unseen, sums, state["step"], saver)
            state.update(loss=sums.loss, right=sums.right, samples=sums.samples)
            watch.on_step(Progress(epoch, state["step_in_epoch"], steps, sums.loss / sums.samples))
            if stop or save:
                saver.save(state)
            if stop:
                saver.wait()
                raise TrainingStopped(state["step"])
    return sums


def _look(unseen: list[Seen], sums: _Sums, step: int, saver: "_Saver") -> None:
    """Fetches losses from the device, in order, and refuses to go on when one is not finite."""
    losses, rights, counts = zip(*unseen, strict=True)
    fetched = torch.stack([torch.stack(losses), torch.stack(rights).double()]).cpu()  # one wait for all of them
    here = torch.cat([fetched, torch.tensor([counts], dtype=torch.float64)]).T
    for offset, (loss, right, samples) in enumerate(saver.trainer.team.all_reduce_sum(here).tolist()):
        if not math.isfinite(loss):
            saver.wait()
            at = step - len(unseen) + offset + 1
            raise Diverged(
                f"step {at}: the loss is {loss}; lower train.schedule's rates; last good checkpoint: {saver.last_good}"
            )
        sums.loss += loss
        sums.right += int(right)
        sums.samples += int(samples)
    unseen.clear()


class _Saver:
    """Writes a checkpoint when told to, beside training: only the copy of the weights holds it up."""

    def __init__(self, trainer: Trainer, checkpoints: Checkpoints, watch: Callbacks) -> None:
        self.trainer, self.checkpoints = trainer, checkpoints
        self.seconds, self.last = watch.checkpoint_seconds, time.monotonic()
        self.last_good = checkpoints.last() or "none yet"
        self._writing: threading.Thread | None = None
        self._error: Exception | None = None

    def due(self) -> bool:
        """Whether it is time. Raises what stopped the last one."""
        if self._error is not None:
            raise self._error
        return time.monotonic() - self.last >= self.seconds

    def save(self, state: State) -> None:
        """Begins to write one; all ranks call it at the same step."""
        self.wait()
        tensors = self.trainer.tensors()
        if self.trainer.team.is_rank0:
            saved = {**state, "job": _identity(self.trainer.job)}
            self._writing = threading.Thread(target=self._write, args=(tensors, saved), name="checkpoint")
            self._writing.start()
        self.last = time.monotonic()

    def wait(self) -> None:
        """Returns when the last one is on disk. Raises what stopped it."""
        if self._writing is not None:
            self._writing.join()
            self._writing = None
        if self._error is not None:
            raise self._error

    def _write(self, tensors: Mapping[str, Tensor], state: State) -> None:
        step = state["step"]
        try:
            for name, tensor in tensors.items():
                if not tensor.isfinite().all():
                    advice = f"lower train.schedule's rates; last good checkpoint: {self.last_good}"
                    raise Diverged(f"step {step}: {name} is no longer finite; {advice}")
            self.last_good = self.checkpoints.save(step, tensors, state)
        except Exception as error:  # noqa: BLE001 - it is raised in the thread that trains
            self._error = error


def _identity(job: TrainingJob) -> State:
    """The job as plain JSON values, to be compared with a checkpoint's."""
    return json.loads(json.dumps(asdict(job)))  # type: ignore[no-any-return]  # json is untyped


def _begin(trainer: Trainer, checkpoints: Checkpoints, watch: Callbacks) -> State:
    owner, name, state = _newest(trainer.team, checkpoints, watch)
    if not name:
        job = trainer.job
        trainer.network.load_full(initial_weights(job.model, job.seed))
        return {"step": 0, "epoch": 0, "step_in_epoch": 0, "loss": 0.0, "right": 0, "samples": 0, "history": []}
    _refuse_another_run(state.pop("job"), _identity(trainer.job))
    with checkpoints.open(name) as tensors:
        trainer.load(trainer.team.broadcast_state(tensors, owner))
    watch.on_note(f"resumed at step {state['step']}, epoch {state['epoch']}" + (f", from rank {owner}" if owner else ""))
    return state


def _newest(team: Team, checkpoints: Checkpoints, watch: Callbacks) -> tuple[int, str, State]:
    """The newest whole checkpoint on any machine, and a rank there: a launcher may have moved rank 0 to another machine.

    An empty name where there is none.
    """
    name, state, notes = team.broadcast_from_rank0(lambda: [*(checkpoints.newest() or ("", {})), checkpoints.set_aside])
    for note in notes:
        watch.on_note(f"checkpoint set aside: {note}")
    newer = ("", {}) if team.is_rank0 else checkpoints.newest(after=name) or ("", {})
    said = [(name, state), *team.all_gather_json(newer)[1:]]
    owner = max(range(len(said)), key=lambda rank: said[rank][0])  # the first of equals
    return owner, *said[owner]


def _refuse_another_run(theirs: State, ours: State, path: str = "") -> None:
    for name in sorted(theirs.keys() | ours.keys()):
        a, b = theirs.get(name), ours.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            _refuse_another_run(a, b, f"{path}{name}.")
        elif a != b:
            raise DataError(
                f"{path}{name}: is {b!r}, but the checkpoint was made with {a!r}; put it back, or remove the checkpoints"
            )
