"""A team of processes: a mesh of data x tower. The two ranks of a tower pair are neighbors and see the same samples.

Three groups: the tower pair, which swaps activations; the replicas of a tower, which see different samples and sum
gradients; and all ranks, which agree on what to do next. Whatever is not a tensor of the network travels as JSON.
"""

import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]  # public, but their stub does not export them

from alexnet.distributed.errors import Lost, raises_lost
from alexnet.distributed.heartbeat import Heartbeat
from alexnet.distributed.team import Piece, Place, Team
from alexnet.distributed.tower_link import TowerLink
from alexnet.errors import DataError

_MARGIN_SECONDS = 5.0  # beyond the timeout that an exchange keeps by itself
_POLL_SECONDS = 0.05
_DTYPES = {"F32": torch.float32, "F64": torch.float64}  # of weights, in safetensors' words


@dataclass(frozen=True)
class Rendezvous:
    """One process of a launch. host, port: of the store that all reach; rank 0 keeps it, unless a launcher does."""

    rank: int
    world_size: int
    host: str
    port: int
    launcher_hosts_store: bool

    @property
    def keeper(self) -> str:
        """Who keeps the store."""
        return f"the launcher at {self.host}:{self.port}" if self.launcher_hosts_store else "rank 0"


@contextmanager
def join(
    rendezvous: Rendezvous,
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
    if rendezvous.world_size % towers:
        raise ValueError(f"{rendezvous.world_size} ranks cannot share {towers} towers; start a multiple of {towers}")
    fast = device.type == "cuda" and not shares_device
    if device.type == "cuda":
        torch.cuda.set_device(device)
    timeout = timedelta(seconds=timeout_seconds)
    store, signs = _stores(rendezvous, timeout, on_death)
    # Half the timeout: a stopped process is found, and ended, before anyone's exchange gives up.
    heartbeat = Heartbeat(signs, rendezvous.keeper, rendezvous.rank, rendezvous.world_size, timeout_seconds / 2, on_death)
    heartbeat.start()
    try:
        with raises_lost("start"):
            dist.init_process_group(
                "gloo", store=store, rank=rendezvous.rank, world_size=rendezvous.world_size, timeout=timeout
            )
            team = Ranks(rendezvous, towers, heartbeat, fast=fast, timeout=timeout)
        yield team
    except Lost as lost:
        why = heartbeat.explain()
        heartbeat.report(why, lost=True)
        raise Lost(f"rank {rendezvous.rank}: {why} ({lost})") from lost
    except Exception as error:
        heartbeat.report(f"{type(error).__name__}: {error}", lost=False)
        raise
    heartbeat.stop()
    dist.destroy_process_group()


def _stores(rendezvous: Rendezvous, timeout: timedelta, on_death: Callable[[str], None]) -> tuple[Store, Store]:
    """Two connections to what only this attempt's ranks read and write: others may wait on the first."""
    seconds = timeout.total_seconds()

    def give_up() -> None:
        on_death(f"rank {rendezvous.rank}: {rendezvous.keeper} gave no sign of life for {seconds:.0f} s")
        os._exit(1)

    guard = threading.Timer(seconds + _MARGIN_SECONDS, give_up)  # a store that was stopped never answers
    guard.daemon = True
    guard.start()
    try:
        with raises_lost(f"rank {rendezvous.rank}: the store at {rendezvous.host}:{rendezvous.port}"):
            keeps = rendezvous.rank == 0 and not rendezvous.launcher_hosts_store
            stores = [
                TCPStore(rendezvous.host, rendezvous.port, is_master=is_master, wait_for_workers=False, timeout=timeout)
                for is_master in (keeps, False)
            ]
            attempt = _meet(stores[0], rendezvous, time.monotonic() + seconds)
            return PrefixStore(attempt, stores[0]), PrefixStore(f"{attempt}/heartbeat", stores[1])
    finally:
        guard.cancel()


def _meet(store: Store, rendezvous: Rendezvous, deadline: float) -> str:
    """A name for this attempt that all its ranks know and no other attempt has.

    A launcher keeps its store, with all that is in it, over restarts, and two launchers count them differently. So every
    rank asks under a name that nobody had before; rank 0 answers whatever it finds, and is done when all have come.
    """
    own = uuid.uuid4().hex
    if rendezvous.rank:
        store.set(f"alexnet/ask/{rendezvous.rank}", own)
        store.wait([f"alexnet/answer/{own}"])
        attempt: str = store.get(f"alexnet/answer/{own}").decode()
        store.set(f"{attempt}/come/{rendezvous.rank}", "")
        return attempt
    while away := [rank for rank in range(1, rendezvous.world_size) if not store.check([f"{own}/come/{rank}"])]:
        if time.monotonic() > deadline:
            raise Lost(f"rank {', '.join(map(str, away))} did not come; start every rank, each with the same address")
        for rank in away:
            if store.check([f"alexnet/ask/{rank}"]):
                store.set(f"alexnet/answer/{store.get(f'alexnet/ask/{rank}').decode()}", own)
        time.sleep(_POLL_SECONDS)
    return own


class Ranks(Team):
    """This process among the others, see Team.

    Args:
        rendezvous: its place.
        towers: of the network.
        heartbeat: takes note of every exchange that this process comes to.
        fast: whether this process can use NCCL; where any cannot, all exchange through host memory.
        timeout: no exchange waits longer.
    """

    def __init__(self, rendezvous: Rendezvous, towers: int, heartbeat: Heartbeat, *, fast: bool, timeout: timedelta) -> None:
        tower = rendezvous.rank % towers
        super().__init__([(tower, tower + 1)])
        self.rank, self.world_size = rendezvous.rank, rendezvous.world_size
        self.replica, self.replicas = rendezvous.rank // towers, rendezvous.world_size // towers
        self._towers, self._tower = towers, tower
        self._all, self._heartbeat = _mine(dist.group.WORLD), heartbeat
        self.staged = not all(self.all_gather_json(fast))
        pairs = [list(range(first, first + towers)) for first in range(0, rendezvous.world_size, towers)]
        columns = [list(range(tower, rendezvous.world_size, towers)) for tower in range(towers)]
        backend = "gloo" if self.staged else "nccl"
        # Every rank makes every group, in the same order.
        pair_groups = [dist.new_group(pair, timeout, backend) for pair in pairs]
        column_groups = [dist.new_group(column, timeout, backend) for column in columns]
        meeting_groups = [dist.new_group(column, timeout, "gloo") for column in columns]
        if towers > 1:
            self.link = TowerLink(_mine(pair_groups[self.replica]), tower, staged=self.staged, exchange=self._exchange)
        self._column, self._meeting = _mine(column_groups[tower]), _mine(meeting_groups[tower])
        self._gradients: _GradientSum | None = None
        self._vote: tuple[Tensor, Any] | None = None

    def register_parameters(self, parameters: Sequence[nn.Parameter]) -> None:
        """See Team."""
        if self.replicas > 1:
            self._gradients = _GradientSum(parameters, self._column, self._exchange, staged=self.staged)

    def backward(self, losses: Tensor | None) -> None:
        """See Team. Sums travel while the backward pass goes on."""
        if self._gradients is None:
            super().backward(losses)
            return
        self._gradients.begin(0 if losses is None else len(losses))
        if losses is not None:
            losses.sum().backward()
        self._gradients.finish()

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """See Team."""
        sums = super().all_reduce_sum(values).contiguous()
        if self.replicas > 1:
            with self._exchange("sum over replicas"):
                dist.all_reduce(sums, group=self._meeting)
        return sums

    def agree(self, stop: bool, save: bool, now: bool = False) -> tuple[bool, bool]:
        """See Team. Votes travel while the next step is computed, and count then."""
        asked = bool(self._vote and self._vote[0][1])  # the last wish to save is still on its way
        flags = torch.tensor([stop, save and self.is_rank0 and not asked], dtype=torch.int32)
        self._heartbeat.vote()
        with raises_lost("vote"):
            votes = [self._vote] if self._vote else []
            self._vote = (flags, dist.all_reduce(flags, dist.ReduceOp.MAX, group=self._all, async_op=True))
            if now:
                votes.append(self._vote)
                self._vote = None
            for _, work in votes:
                work.wait()
        return any(bool(flags[0]) for flags, _ in votes), any(bool(flags[1]) for flags, _ in votes)

    def all_gather_json(self, value: Any) -> list[Any]:
        """See Team."""
        text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        with self._exchange("agreement"):
            sizes = torch.zeros(self.world_size, dtype=torch.int64)
            dist.all_gather_into_tensor(sizes, torch.tensor([len(text)]), group=self._all)
            room = int(sizes.max())
            texts = torch.zeros(self.world_size * room, dtype=torch.uint8)
            dist.all_gather_into_tensor(texts, torch.nn.functional.pad(text, (0, room - len(text))), group=self._all)
        rows = texts.view(self.world_size, room)
        return [json.loads(bytes(row[:size].tolist())) for row, size in zip(rows, sizes.tolist(), strict=True)]

    def broadcast_from_rank0(self, make: Callable[[], Any]) -> Any:
        """See Team."""
        answer: dict[str, Any] = {}
        if self.is_rank0:
            try:
                answer = {"value": make()}
            except DataError as error:
                answer = {"error": str(error)}
        answer = self.all_gather_json(answer)[0]
        if "error" in answer:
            raise DataError(answer["error"])
        return answer["value"]

    def check_equal_on_ranks(self, what: Mapping[str, Any]) -> None:
        """See Team."""
        said = self.all_gather_json(dict(what))
        for rank, theirs in enumerate(said):
            if found := _difference(theirs, said[0]):
                name, other, first = found
                raise DataError(
                    f"{name}: is {other!r} on rank {rank}, but {first!r} on rank 0; "
                    "start every rank with the same code, parameters and data"
                )

    def check_batch_split(self, samples: Tensor) -> None:
        """See Team."""
        said = self.all_gather_json(samples.tolist())
        pairs = [said[first : first + self._towers] for first in range(0, self.world_size, self._towers)]
        for replica, pair in enumerate(pairs):
            if any(other != pair[0] for other in pair):
                raise DataError(
                    f"batch: the towers of replica {replica} have different samples; start both with the same data and seed"
                )
        whole = [sample for pair in pairs for sample in pair[0]]
        if len(set(whole)) != len(whole):
            raise DataError("batch: two replicas have the same sample; give every replica its own part of the batch")

    def gather_state(self, full: dict[str, Tensor], own: Sequence[Piece], elsewhere: Sequence[Place]) -> None:
        """See Team. The pieces of replica 0's other towers come through host memory, in the order of `elsewhere`."""
        if self.is_rank0:
            super().gather_state(full, own, elsewhere)
            for name, where in elsewhere:
                piece = torch.empty_like(full[name][where], memory_format=torch.contiguous_format)
                with self._exchange("weights"):
                    dist.recv(piece, src=1, group=self._all)
                full[name][where] = piece
        elif self.replica == 0:
            for _, _, piece in own:
                with self._exchange("weights"):
                    dist.send(piece.cpu().contiguous(), dst=0, group=self._all)

    def broadcast_state(self, tensors: Mapping[str, Any] | None, owner: int) -> Mapping[str, Any]:
        """See Team."""
        if all(self.all_gather_json(tensors is not None)):
            assert tensors is not None
            return tensors
        whole = {}
        for name, shape, dtype in self.all_gather_json(_sizes(tensors) if self.rank == owner and tensors is not None else [])[
            owner
        ]:
            if self.rank == owner and tensors is not None:
                tensor = tensors[name][:].contiguous()
            else:
                tensor = torch.empty(shape, dtype=_DTYPES[dtype])
            with self._exchange("checkpoint"):
                dist.broadcast(tensor.view(torch.uint8) if tensor.dim() else tensor, src=owner, group=self._all)
            whole[name] = tensor
        return whole

    @contextmanager
    def _exchange(self, what: str) -> Iterator[None]:
        self._heartbeat.exchange()
        with raises_lost(what):
            yield


class _GradientSum:
    """Sums of gradients over replicas, on their way as soon as they are there, always in the same order.

    A replica without samples takes part with zeros. What is summed are gradients of summed losses; they are divided by the
    number of samples of all replicas at last, so that replicas may have different numbers.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        group: dist.ProcessGroup,
        exchange: Callable[[str], AbstractContextManager[None]],
        *,
        staged: bool,
    ) -> None:
        self._order = list(reversed(parameters))  # about the order in which a backward pass makes them
        self._group, self._exchange, self._staged = group, exchange, staged
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
            with raises_lost("sum of gradients"):
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
        with self._exchange("sum of gradients"):
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


def _sizes(tensors: Mapping[str, Any]) -> list[tuple[str, list[int], str]]:
    """Names, shapes and types of the tensors in a file."""
    return [(name, tensors[name].get_shape(), tensors[name].get_dtype()) for name in sorted(tensors)]
