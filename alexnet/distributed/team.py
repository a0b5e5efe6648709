"""The processes that train one network together, and the exchanges between them that training uses.

`Team` is a single process, where every exchange is trivial; `ranks.Ranks` is one of several. Training is written over a Team.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from jaxtyping import Float, Int64
from torch import Tensor, nn

from alexnet.model.links import Link, LocalLink

Form = Literal["one-device", "two-devices", "process-a-tower", "towers-x-replicas", "replicas"]
TowerRange = tuple[int, int]  # towers from the first to, but not including, the last
NamedSlice = tuple[str, tuple[slice, ...]]  # a full tensor's name, and a slice of it
Piece = tuple[str, tuple[slice, ...], Tensor]  # the same, and the values of that slice
TOWERS_APART: tuple[TowerRange, ...] = ((0, 1), (1, 2))  # both towers in one process, each as a part of its own


class Team:
    """A training run in a single process.

    Attributes:
        rank: number of this process. Rank 0 writes files and prints.
        world_size: number of processes.
        replica: number of the part of every batch that this process trains on, below `replicas`.
        tower_ranges: the towers that this process holds, see AlexNet; None is the whole network.
        link: between the towers.
    """

    def __init__(self, tower_ranges: Sequence[TowerRange] | None = None, link: Link | None = None) -> None:
        self.rank, self.world_size = 0, 1
        self.replica, self.replicas = 0, 1
        self.tower_ranges = tower_ranges
        self.link: Link = link or LocalLink()

    @property
    def is_rank0(self) -> bool:
        """Whether this process writes the files and prints."""
        return self.rank == 0

    def register_parameters(self, parameters: Sequence[nn.Parameter]) -> None:
        """Names the parameters whose gradients `backward` computes. Called once, before it."""

    def backward(self, losses: Float[Tensor, " n"] | None) -> None:
        """Computes the gradients of the mean loss over the whole batch.

        losses: those of this replica's samples; None where it has none.
        """
        assert losses is not None, "a single process has every sample"
        losses.mean().backward()

    def all_reduce_sum(self, values: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The sums over replicas, equal on every rank, on the CPU in float64."""
        return values.double().cpu()

    def agree(self, stop: bool, save: bool, now: bool = False) -> tuple[bool, bool]:  # noqa: ARG002 - for Ranks
        """Whether all ranks stop, which any of them may ask for, and save, which rank 0 may.

        now: answer for this call; otherwise the answer may be that to the call before.
        """
        return stop, save

    def broadcast_from_rank0(self, make: Callable[[], Any]) -> Any:
        """The value that `make` returns on rank 0, of JSON's types. A DataError there is raised on every rank."""
        return make()

    def all_gather_json(self, value: Any) -> list[Any]:
        """The values of all ranks, of JSON's types, in the order of ranks."""
        return [value]

    def check_equal_on_ranks(self, values: Mapping[str, Any]) -> None:
        """Raises DataError on every rank, naming the field and the ranks, unless all pass equal values."""

    def check_batch_split(self, samples: Int64[Tensor, " n"]) -> None:
        """Raises DataError unless tower pairs have the same samples (global indices), and replicas different ones."""

    def gather_state(self, full: dict[str, Tensor], own: Sequence[Piece], elsewhere: Sequence[NamedSlice]) -> None:  # noqa: ARG002 - for Ranks
        """Fills the full tensors on rank 0 with every tower's pieces; `elsewhere` names those that it does not hold."""
        for name, where, piece in own:
            full[name][where] = piece.cpu()

    def broadcast_state(self, tensors: Mapping[str, Any] | None, owner: int) -> Mapping[str, Any]:
        """The full tensors of a checkpoint: each rank's own, or those of rank `owner` where any rank has none.

        tensors: what this rank's file holds, or None. They need to be sliced only.
        """
        assert tensors is not None
        assert owner == self.rank
        return tensors


def pick_form(
    devices: Sequence[str], peer_access: bool | None, processes: int | None = None, towers: int = 2
) -> tuple[Form, str]:
    """The form that training takes, and why.

    Args:
        devices: on this machine, such as ["cuda:0", "cuda:1"].
        peer_access: whether two GPUs reach each other's memory; None where there are not two.
        processes: ranks of the whole run; None: not launched yet, one is started for every device.

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
