"""One network in training: a step, a validation, and its full state. `loop.fit` calls them in order."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional

from alexnet.distributed.team import Piece, Team
from alexnet.images.statistics import PixelStatistics
from alexnet.loading.augment import Augment, Crops, center_crop
from alexnet.loading.device import to_device
from alexnet.loading.loader import Batch, EncodedBatch
from alexnet.model.architecture import ModelConfig
from alexnet.model.network import AlexNet, Dropout, full_shapes, keyed_dropout, tensor_slices
from alexnet.randomness.keys import random_key
from alexnet.randomness.tensors import halves
from alexnet.training.schedule import Rates, TrainConfig
from alexnet.training.sgd import PaperSgd
from alexnet.training.step_graph import StepGraph

_IMAGES, _LABELS, _WORDS = "images", "labels", "words"  # a recorded step's inputs
_KINDS = ("", "velocity/")  # what a full tensor's name starts with


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


class Trainer:
    """A network, its optimizer and its augmentation.

    Args:
        job: what is trained, and how.
        network: its parameters, on `device` or, with a tower on each of two devices, with the first part there.
        device: of batches and of the loss.
        team: the processes that train together; None: this one alone.
    """

    def __init__(
        self, job: TrainingJob, network: AlexNet, pixels: PixelStatistics, device: torch.device, team: Team | None = None
    ) -> None:
        self.job, self.network, self.device = job, network, device
        self.team = team or Team()
        self.team.register_parameters([parameter for _, _, parameter in network.parameter_slices()])
        mean, eigenvectors, std = map(torch.from_numpy, (pixels.mean_image, pixels.eigenvectors, pixels.eigen_std))
        self.augment = Augment(job.train.augment, mean.to(device), eigenvectors, std, job.seed, job.model.input_px)
        self._drops = [row.name for row in network.layers if row.drops]
        self.optimizer = PaperSgd(_parameter_groups(network, job.train), momentum=job.train.momentum)
        one_gpu = (
            device.type == "cuda" and self.team.world_size == 1 and len({each.device for each in network.parameters()}) == 1
        )
        self._graph = StepGraph(self._update_from, device) if one_gpu else None
        self._bytes, self._samples = 0, 0
        self._full: dict[str, Tensor] = {}  # allocated once: new memory costs more than filling it

    @property
    def bytes_per_sample(self) -> float:
        """Bytes that each tower of this process sent to the other for a training sample, forward and backward."""
        return self._bytes / max(1, self._samples) / len(self.network.parts)

    def set_rates(self, rates: Rates) -> None:
        """Learning rates for the steps to come."""
        for group in self.optimizer.param_groups:
            if group["lr"] != getattr(rates, group["name"]):
                group["lr"] = getattr(rates, group["name"])
                if self._graph is not None:
                    self._graph.reset()

    def step(self, batch: Batch, epoch: int, number: int) -> tuple[Tensor, Tensor]:
        """One update.

        Args:
            batch: this replica's samples, on the device; it may be empty.
            epoch: from 0; it and the samples decide the augmentation.
            number: of the step, from 0 over all epochs; it and the samples decide dropout.

        Returns:
            The sum of the losses, and how many were classified correctly; both on the device.
        """
        sent = self.network.link.bytes_sent
        if not len(batch.labels):
            loss, right = self._update_with_others()
        elif self._graph is None:
            loss, right = self._update(batch, epoch, number)
        else:
            loss, right = self._graph(self._inputs(batch, epoch, number))
        self._bytes += self.network.link.bytes_sent - sent
        self._samples += len(batch.labels)
        return loss, right

    def _update_with_others(self) -> tuple[Tensor, Tensor]:
        """An update by the other replicas' gradients: this one has no samples."""
        self.optimizer.zero_grad(set_to_none=True)
        self.team.backward(None)
        self.optimizer.step()
        zero = torch.zeros((), device=self.device)
        return zero.double(), zero.long()

    def _update(self, batch: Batch, epoch: int, number: int) -> tuple[Tensor, Tensor]:
        """An update, drawn and computed operation by operation."""
        dropout = keyed_dropout(random_key(self.job.seed, "dropout", number), batch.samples)
        return self._learn(self.augment(batch.images, batch.samples, epoch), batch.labels, dropout)

    def _inputs(self, batch: Batch, epoch: int, number: int) -> dict[str, Tensor]:
        """A step's inputs: images and labels on the GPU and, in pinned memory, the words that everything is drawn from there.

        Few operations: each waits for the interpreter's lock, which the loader's threads take some ten thousand times a second.
        """
        key = random_key(self.job.seed, "dropout", number)
        dropout = torch.tensor([half for layer in self._drops for half in halves(random_key(key, layer))], dtype=torch.int64)
        words = torch.cat([dropout, self.augment.words(batch.samples, epoch)])
        return {_IMAGES: batch.images, _LABELS: batch.labels, _WORDS: words.pin_memory()}

    def _update_from(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        images, labels, words = (inputs[name] for name in (_IMAGES, _LABELS, _WORDS))
        keys, words = words[: 2 * len(self._drops)].view(-1, 2), words[2 * len(self._drops) :]
        samples = words[-len(labels) :]
        dropout = {layer: torch.cat([key, samples]) for layer, key in zip(self._drops, keys, strict=True)}
        return self._learn(self.augment.apply(images, words), labels, dropout.__getitem__)

    def _learn(self, crops: Crops, labels: Tensor, dropout: Dropout) -> tuple[Tensor, Tensor]:
        """One update. Returns the sum of the losses and the number of right answers."""
        self.optimizer.zero_grad(set_to_none=True)
        logits = self._logits(crops, dropout)
        losses = functional.cross_entropy(logits, labels, reduction="none")
        self.team.backward(losses)
        self.optimizer.step()
        return losses.detach().double().sum(), (logits.detach().argmax(1) == labels).sum()

    @torch.no_grad()
    def validate(self, batches: Batches, should_stop: Callable[[], bool] = lambda: False) -> tuple[float, float, float] | None:
        """Mean loss, top-1 and top-5 error of the center crop, over all replicas; None when the team stopped before the end."""
        sums, count = torch.zeros(3, dtype=torch.float64, device=self.device), 0
        for number, batch in enumerate(to_device(batches.epoch(0), self.device)):
            if number == 0:
                self.team.check_batch_split(batch.samples)
            if len(batch.labels):
                sums += self._validation_sums(batch)
                count += len(batch.labels)
            if self.team.agree(should_stop(), False)[0]:
                return None
        if self.team.agree(should_stop(), False, now=True)[0]:
            return None
        own = torch.tensor([*sums.tolist(), count], dtype=torch.float64)
        loss, wrong1, wrong5, total = self.team.all_reduce_sum(own).tolist()
        return loss / total, wrong1 / total, wrong5 / total

    def _validation_sums(self, batch: Batch) -> Tensor:
        """Sum of losses, number of top-1 and of top-5 errors; on the device, so that the host does not wait."""
        logits = self._logits(center_crop(batch.images, self.augment.mean), None)
        loss = functional.cross_entropy(logits, batch.labels, reduction="none").double().sum()
        best = logits.topk(min(5, logits.shape[1]), 1).indices == batch.labels[:, None]
        wrong = torch.stack([~best[:, 0], ~best.any(1)]).sum(1).double()
        return torch.cat([loss[None], wrong])

    def _logits(self, crops: Tensor, dropout: Dropout | None) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.job.train.precision == "bf16"):
            logits = self.network(crops.to(self._dtype()), dropout)
        return logits if logits.dtype is torch.float64 else logits.float()  # type: ignore[no-any-return]  # Module.__call__

    def _dtype(self) -> torch.dtype:
        return next(self.network.parameters()).dtype

    @property
    def full_shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of full weights and velocities."""
        return {f"{kind}{name}": shape for name, shape in full_shapes(self.job.model).items() for kind in _KINDS}

    def tensors(self) -> dict[str, Tensor]:
        """Full weights and velocities by name, on the CPU; empty but on rank 0. Every rank calls it at the same step.

        The next call overwrites them.
        """
        own: list[Piece] = []
        for name, where, parameter in self.network.parameter_slices():
            own += [(name, where, parameter.detach()), (f"velocity/{name}", where, self.optimizer.velocity(parameter))]
        if not self.team.is_rank0:
            self.team.gather_state({}, [piece for piece in own if not piece[0].endswith("fc8.bias")], [])  # rank 0 has the same
            return {}
        config = self.job.model
        if not self._full:
            self._full = {name: torch.empty(shape, dtype=self._dtype()) for name, shape in self.full_shapes.items()}
        first = (self.team.tower_ranges or [(0, config.towers)])[-1][1]  # of the towers that rank 0 does not have
        others = [each for tower in range(first, config.towers) for each in tensor_slices(config, (tower, tower + 1))]
        self.team.gather_state(self._full, own, [(f"{kind}{name}", where) for name, where in others for kind in _KINDS])
        return self._full

    def unlike(self, tensors: Mapping[str, Any]) -> str:
        """What of a checkpoint's tensors are not this network's weights and velocities; empty: nothing."""
        shapes, kind = self.full_shapes, {torch.float32: "F32", torch.float64: "F64"}[self._dtype()]
        if names := sorted(shapes.keys() ^ tensors.keys()):
            return f"{names[0]} is {'missing' if names[0] in shapes else 'unknown'}"
        for name, shape in shapes.items():
            found = tuple(tensors[name].get_shape()), tensors[name].get_dtype()
            if found != (shape, kind):
                return f"{name} has shape {found[0]} of {found[1]}, this network needs {shape} of {kind}"
        return ""

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Any]) -> None:
        """Copies this process's slices of full weights and velocities, which may be views of a file."""
        self.network.load_full(tensors)
        for name, where, parameter in self.network.parameter_slices():
            self.optimizer.velocity(parameter).copy_(tensors[f"velocity/{name}"][where])


def _parameter_groups(network: AlexNet, config: TrainConfig) -> list[dict[str, Any]]:
    """Parameters by learning rate and weight decay, named as in Rates."""
    groups: dict[str, dict[str, Any]] = {}
    for full_name, _, parameter in network.parameter_slices():
        layer, kind = full_name.split(".")
        name = "weights" if kind == "weight" else "biases"
        if layer == "conv1":
            name = "conv1" if kind == "weight" else "conv1_biases"
        decay = config.weight_decay if kind == "weight" else config.bias_weight_decay
        group = groups.setdefault(name, {"name": name, "lr": 0.0, "weight_decay": decay, "params": []})
        group["params"].append(parameter)
    return list(groups.values())
