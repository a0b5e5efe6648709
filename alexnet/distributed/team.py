"""The processes that train one network together, and what training asks of them.

`Team` is one process by itself: every answer is trivial. `ranks.Ranks` is the same over many. Training is written over a team.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from jaxtyping import Float, Int64
from torch import Tensor, nn

from alexnet.model.links import Link, LocalLink

Form = Literal["one-device", "two-devices", "process-a-tower", "towers-x-replicas", "replicas"]
Place = tuple[str, tuple[slice, ...]]  # a full tensor's name, and which slice of it
Piece = tuple[str, tuple[slice, ...], Tensor]  # and that slice itself


class Team:
    """One process by itself.

    Attributes:
        rank: of this process; rank 0 writes files and speaks.
        world_size: number of processes.
        replica: which part of every batch this process trains on, of `replicas`.
        tower_ranges: ranges of towers that this process holds, see AlexNet; None is the whole network.
        link: between the towers.
    """

    def __init__(self, tower_ranges: Sequence[tuple[int, int]] | None = None, link: Link | None = None) -> None:
        self.rank, self.world_size = 0, 1
        self.replica, self.replicas = 0, 1
        self.tower_ranges = tower_ranges
        self.link: Link = link or LocalLink()

    @property
    def is_rank0(self) -> bool:
        """Whether this process writes files and speaks for all."""
        return self.rank == 0

    def register_parameters(self, parameters: Sequence[nn.Parameter]) -> None:
        """Takes note of the parameters whose gradients `backward` makes."""

    def backward(self, losses: Float[Tensor, " n"] | None) -> None:
        """Gradients of the mean loss over the whole batch, of which these are this replica's samples; None: it has none."""
        assert losses is not None, "a process by itself has every sample"
        losses.mean().backward()

    def all_reduce_sum(self, values: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Sums over replicas, on the CPU in float64; the same numbers on every rank."""
        return values.double().cpu()

    def agree(self, stop: bool, save: bool, now: bool = False) -> tuple[bool, bool]:  # noqa: ARG002 - who is alone is never late
        """What all do at the same step: stop if any wants to, save if rank 0 does. May answer a call later unless `now`."""
        return stop, save

    def broadcast_from_rank0(self, make: Callable[[], Any]) -> Any:
        """What rank 0 makes, plain JSON values, on every rank. Its DataError is raised on every rank."""
        return make()

    def all_gather_json(self, value: Any) -> list[Any]:
        """What every rank says, plain JSON values, in the order of ranks."""
        return [value]

    def check_equal_on_ranks(self, what: Mapping[str, Any]) -> None:
        """Raises DataError on every rank when they do not all say the same, naming the field and the ranks."""

    def check_batch_split(self, samples: Int64[Tensor, " n"]) -> None:
        """Raises DataError unless tower pairs have the same samples, and replicas different ones."""

    def gather_state(self, full: dict[str, Tensor], own: Sequence[Piece], elsewhere: Sequence[Place]) -> None:  # noqa: ARG002 - as above
        """Fills the full tensors of rank 0 with every tower's pieces; `elsewhere` are those that it does not hold."""
        for name, where, piece in own:
            full[name][where] = piece.cpu()

    def broadcast_state(self, tensors: Mapping[str, Any] | None, owner: int) -> Mapping[str, Any]:
        """Full tensors for every rank: its own view of a file, or where a rank has no such file, those of `owner` sent over."""
        assert tensors is not None
        assert owner == self.rank, "a process by itself has what there is"
        return tensors


def pick_form(
    devices: Sequence[str], peer_access: bool | None, processes: int | None = None, towers: int = 2
) -> tuple[Form, str]:
    """The form that training takes, and why.

    Args:
        devices: on this machine, such as ["cuda:0", "cuda:1"].
        peer_access: whether two GPUs reach each other's memory; None where there are not two.
        processes: ranks of the whole run; None: not launched yet, one is started for every device.
        towers: of the network.

    Raises:
        ValueError: the ranks cannot share the towers evenly.
    """
    count = len(devices) if processes is None else processes
    if count == 1:
        if towers == 1:
            return "one-device", f"one process on {devices[0]}: a single tower"
        if len(devices) > 1:
            return "two-devices", f"one process on {devices[0]} and {devices[1]}: a tower on each"
        return "one-device", f"one process on {devices[0]}: both towers as grouped convolutions"
    if towers == 1:
        return "replicas", f"{count} processes and one tower: each trains on its part of every batch"
    if count % towers:
        raise ValueError(f"processes: {count} ranks cannot share {towers} towers; start a multiple of {towers}")
    gpus = [name for name in devices if name.startswith("cuda")]
    if len(set(gpus)) < 2:
        way = "through host memory by gloo" if gpus else "by gloo"
    else:
        way = {True: "directly between GPUs by NCCL", False: "by NCCL, without peer access between the GPUs", None: "by NCCL"}[
            peer_access
        ]
    if count == towers:
        return "process-a-tower", f"{count} processes, a tower each; they exchange outputs {way}"
    return (
        "towers-x-replicas",
        f"{count} processes: {count // towers} replicas of {towers} towers; towers exchange outputs {way}",
    )
