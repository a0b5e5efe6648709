"""A team of processes: a mesh of data x tower. The two ranks of a tower pair are neighbors and see the same samples.

Three groups: the tower pair, which swaps activations; the replicas of a tower, which see different samples and sum
gradients; and all ranks, which agree on what to do next. Whatever is not a tensor of the network travels as JSON.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from alexnet.errors import DataError
from alexnet.group_link import GroupLink
from alexnet.links import Lost
from alexnet.pulse import Pulse
from alexnet.team import Piece, Place, Team


@dataclass(frozen=True)
class Seat:
    """One process of a launch. attempt: restarts so far; host, port: of the store that all its processes reach."""

    rank: int
    size: int
    attempt: int
    host: str
    port: int


@contextmanager
def join(
    seat: Seat,
    device: torch.device,
    *,
    towers: int,
    shares_device: bool,
    timeout_seconds: float,
    on_death: Callable[[str], None],
) -> Iterator["Ranks"]:
    """This process's place in the team; the launcher has set torch's own variables for it.

    Args:
        device: of this process.
        towers: of the network; each is trained by a process of its own.
        shares_device: whether another rank uses the same GPU, where NCCL cannot be used.
        timeout_seconds: no exchange waits longer.
        on_death: is told why, should the process have to end itself.

    Raises:
        Lost: from inside, when another process ended or hangs; says which and why.
        ValueError: the ranks cannot share the towers evenly.
    """
    if seat.size % towers:
        raise ValueError(f"{seat.size} ranks cannot share {towers} towers; start a multiple of {towers}")
    fast = device.type == "cuda" and not shares_device
    if device.type == "cuda":
        torch.cuda.set_device(device)
    timeout = timedelta(seconds=timeout_seconds)
    dist.init_process_group("cpu:gloo,cuda:nccl" if fast else "gloo", timeout=timeout)
    # Half the timeout: a stopped process is found, and ended, before anyone's exchange gives up.
    pulse = Pulse((seat.host, seat.port), seat.attempt, seat.rank, seat.size, timeout_seconds / 2, on_death)
    pulse.start()
    try:
        yield Ranks(seat, towers, staged=not fast, timeout=timeout)
    except Lost as lost:
        why = pulse.explain()
        pulse.report(why, lost=True)
        raise Lost(f"rank {seat.rank}: {why} ({lost})") from lost
    except Exception as error:
        pulse.report(f"{type(error).__name__}: {error}", lost=False)
        raise
    pulse.stop()
    dist.destroy_process_group()


class Ranks(Team):
    """This process among the others, see Team."""

    def __init__(self, seat: Seat, towers: int, *, staged: bool, timeout: timedelta) -> None:
        pairs = [list(range(first, first + towers)) for first in range(0, seat.size, towers)]
        columns = [list(range(tower, seat.size, towers)) for tower in range(towers)]
        backend = "gloo" if staged else "nccl"
        # Every rank makes every group, in the same order.
        pair_groups = [dist.new_group(pair, timeout, backend) for pair in pairs]
        column_groups = [dist.new_group(column, timeout, backend) for column in columns]
        meeting_groups = [dist.new_group(column, timeout, "gloo") for column in columns]
        self._all = _mine(dist.new_group(timeout=timeout, backend="gloo"))
        tower = seat.rank % towers
        link = GroupLink(_mine(pair_groups[seat.rank // towers]), tower, staged=staged) if towers > 1 else None
        super().__init__([(tower, tower + 1)], link)
        self.rank, self.size = seat.rank, seat.size
        self.replica, self.replicas = seat.rank // towers, seat.size // towers
        self._towers, self._tower = towers, tower
        self._column, self._meeting = _mine(column_groups[tower]), _mine(meeting_groups[tower])
        self._staged = staged
        self._gradients: _GradientSum | None = None
        self._vote: tuple[Tensor, Any] | None = None

    def adopt(self, parameters: Sequence[nn.Parameter]) -> None:
        """See Team."""
        if self.replicas > 1:
            self._gradients = _GradientSum(parameters, self._column, staged=self._staged)

    def backward(self, losses: Tensor | None) -> None:
        """See Team. Sums travel while the backward pass goes on."""
        if self._gradients is None:
            super().backward(losses)
            return
        self._gradients.begin(0 if losses is None else len(losses))
        if losses is not None:
            losses.sum().backward()
        self._gradients.finish()

    def total(self, values: Tensor) -> Tensor:
        """See Team."""
        sums = super().total(values).contiguous()
        if self.replicas > 1:
            with _answered("sum over replicas"):
                dist.all_reduce(sums, group=self._meeting)
        return sums

    def decide(self, stop: bool, save: bool, now: bool = False) -> tuple[bool, bool]:
        """See Team. Votes travel while the next step is computed, and count then."""
        asked = bool(self._vote and self._vote[0][1])  # the last wish to save is still on its way
        flags = torch.tensor([stop, save and self.leads and not asked], dtype=torch.int32)
        with _answered("vote"):
            votes = [self._vote] if self._vote else []
            self._vote = (flags, dist.all_reduce(flags, dist.ReduceOp.MAX, group=self._all, async_op=True))
            if now:
                votes.append(self._vote)
                self._vote = None
            for _, work in votes:
                work.wait()
        return any(bool(flags[0]) for flags, _ in votes), any(bool(flags[1]) for flags, _ in votes)

    def from_first(self, make: Callable[[], Any]) -> Any:
        """See Team."""
        answer: dict[str, Any] = {}
        if self.leads:
            try:
                answer = {"value": make()}
            except DataError as error:
                answer = {"error": str(error)}
        answer = self._talk(answer)[0]
        if "error" in answer:
            raise DataError(answer["error"])
        return answer["value"]

    def require_alike(self, what: Mapping[str, Any]) -> None:
        """See Team."""
        said = self._talk(dict(what))
        for rank, theirs in enumerate(said):
            if found := _difference(theirs, said[0]):
                name, other, first = found
                raise DataError(
                    f"{name}: is {other!r} on rank {rank}, but {first!r} on rank 0; "
                    "start every rank with the same code, parameters and data"
                )

    def check_samples(self, samples: Tensor) -> None:
        """See Team."""
        said = self._talk(samples.tolist())
        pairs = [said[first : first + self._towers] for first in range(0, self.size, self._towers)]
        for replica, pair in enumerate(pairs):
            if any(other != pair[0] for other in pair):
                raise DataError(
                    f"batch: the towers of replica {replica} have different samples; start both with the same data and seed"
                )
        whole = [sample for pair in pairs for sample in pair[0]]
        if len(set(whole)) != len(whole):
            raise DataError("batch: two replicas have the same sample; give every replica its own part of the batch")

    def collect(self, full: dict[str, Tensor], own: Sequence[Piece], elsewhere: Sequence[Place]) -> None:
        """See Team. The pieces of replica 0's other towers come through host memory, in the order of `elsewhere`."""
        if self.leads:
            super().collect(full, own, elsewhere)
            for name, where in elsewhere:
                piece = torch.empty_like(full[name][where], memory_format=torch.contiguous_format)
                with _answered("weights"):
                    dist.recv(piece, src=1, group=self._all)
                full[name][where] = piece
        elif self.replica == 0:
            for _, _, piece in own:
                with _answered("weights"):
                    dist.send(piece.cpu().contiguous(), dst=0, group=self._all)

    def spread(self, tensors: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """See Team."""
        if all(self._talk(tensors is not None)):
            return super().spread(tensors)
        sizes: dict[str, Any] = self.from_first(lambda: _sizes(tensors))
        whole = {}
        for name, (shape, dtype) in sizes.items():
            tensor = (
                tensors[name][:].contiguous()
                if tensors is not None and self.leads
                else torch.empty(shape, dtype=getattr(torch, dtype))
            )
            with _answered("checkpoint"):
                dist.broadcast(tensor.view(torch.uint8) if tensor.dim() else tensor, src=0, group=self._all)
            whole[name] = tensor
        return whole

    def _talk(self, value: Any) -> list[Any]:
        """What every rank says, as JSON."""
        text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        with _answered("agreement"):
            sizes = torch.zeros(self.size, dtype=torch.int64)
            dist.all_gather_into_tensor(sizes, torch.tensor([len(text)]), group=self._all)
            room = int(sizes.max())
            texts = torch.zeros(self.size * room, dtype=torch.uint8)
            dist.all_gather_into_tensor(texts, torch.nn.functional.pad(text, (0, room - len(text))), group=self._all)
        rows = texts.view(self.size, room)
        return [json.loads(bytes(row[:size].tolist())) for row, size in zip(rows, sizes.tolist(), strict=True)]


class _GradientSum:
    """Sums of gradients over replicas, on their way as soon as they are there, always in the same order.

    A replica without samples takes part with zeros. What is summed are gradients of summed losses; they are divided by the
    number of samples of all replicas at last, so that replicas may have different numbers.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], group: dist.ProcessGroup, *, staged: bool) -> None:
        self._order = list(reversed(parameters))  # about the order in which a backward pass makes them
        self._group, self._staged = group, staged
        self._made: set[nn.Parameter] = set()
        self._sent: list[tuple[Tensor, Tensor, Any]] = []
        for parameter in self._order:
            parameter.register_post_accumulate_grad_hook(self._on_made)

    def begin(self, samples: int) -> None:
        """Before the backward pass."""
        self._made.clear()
        self._sent.clear()
        self._count = torch.tensor(float(samples), dtype=torch.float64, device=self._order[0].device)
        self._send(self._count)

    def finish(self) -> None:
        """After it: every gradient is that of the mean over the whole batch."""
        for parameter in self._order:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self._made.update(self._order)
        self._send_made()
        for target, summed, work in self._sent:
            with _answered("sum of gradients"):
                work.wait()
            if summed is not target:
                target.copy_(summed)
        for parameter in self._order:
            assert parameter.grad is not None
            parameter.grad.div_(self._count.to(parameter.grad.dtype))

    def _on_made(self, parameter: Tensor) -> None:
        self._made.add(parameter)  # type: ignore[arg-type]  # a hook on a parameter is called with it
        self._send_made()

    def _send_made(self) -> None:
        while (number := len(self._sent) - 1) < len(self._order) and self._order[number] in self._made:
            grad = self._order[number].grad
            assert grad is not None
            self._send(grad.detach())

    def _send(self, tensor: Tensor) -> None:
        summed = tensor.cpu() if self._staged else tensor
        flat = summed.as_strided((summed.numel(),), (1,))  # its memory, in whatever order: the same on every replica
        with _answered("sum of gradients"):
            self._sent.append((tensor, summed, dist.all_reduce(flat, group=self._group, async_op=True)))


def _mine(group: Any) -> dist.ProcessGroup:
    assert isinstance(group, dist.ProcessGroup), "this rank is in the group"
    return group


def _difference(theirs: Any, first: Any, path: str = "") -> tuple[str, Any, Any] | None:
    """The first field in which two trees differ, and both its values."""
    if not (isinstance(theirs, dict) and isinstance(first, dict)):
        return None if theirs == first else (path.removesuffix("."), theirs, first)
    for name in sorted(theirs.keys() | first.keys()):
        if found := _difference(theirs.get(name), first.get(name), f"{path}{name}."):
            return found
    return None


def _sizes(tensors: Mapping[str, Any] | None) -> dict[str, tuple[list[int], str]]:
    assert tensors is not None
    return {
        name: (list(tensors[name][:].shape), str(tensors[name][:].dtype).removeprefix("torch.")) for name in sorted(tensors)
    }


@contextmanager
def _answered(what: str) -> Iterator[None]:
    """Turns the backends' many errors into one."""
    try:
        yield
    except Lost:
        raise
    except RuntimeError as error:
        raise Lost(f"{what}: {error}") from error
