"""The ranks of one training run, as a mesh of replicas x towers. A tower pair are neighboring ranks with the same samples.

Three kinds of process groups: the ranks of a tower pair, which swap activations; the replicas of a tower, which see different
samples and sum gradients; and all ranks, which agree on what to do next. Whatever is not a tensor is exchanged as JSON.
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

from alexnet.config import first_difference
from alexnet.distributed.errors import ExitStatus, Lost, raises_lost
from alexnet.distributed.heartbeat import Heartbeat
from alexnet.distributed.team import NamedSlice, Piece, Team
from alexnet.distributed.tower_link import TowerLink
from alexnet.errors import DataError

_MARGIN_SECONDS = 5.0  # beyond the timeout that the store's client keeps by itself
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Rendezvous:
    """What a launcher tells a rank: its number, and the address of the store that all reach.

    launcher_hosts_store: otherwise rank 0 hosts it.
    """

    rank: int
    world_size: int
    host: str
    port: int
    launcher_hosts_store: bool

    @property
    def store_host(self) -> str:
        """Names who hosts the store, for messages."""
        return f"the launcher at {self.host}:{self.port}" if self.launcher_hosts_store else "rank 0"


@contextmanager
def join(
    rendezvous: Rendezvous,
    device: torch.device,
    *,
    towers: int,
    shares_device: bool,
    timeout_seconds: float,
    on_death: Callable[[ExitStatus], object],
) -> Iterator["Ranks"]:
    """Joins the other ranks, and leaves them at the end of the context.

    Args:
        towers: of the network; a rank trains one of them, and their number divides that of the ranks.
        shares_device: whether another rank uses the same GPU, which NCCL refuses.
        timeout_seconds: no exchange waits longer.
        on_death: is called with the reason before this process ends itself, see Heartbeat.

    Raises:
        Lost: from inside the context, when another rank ended or hangs; names it and the reason.
    """
    use_nccl = device.type == "cuda" and not shares_device
    if device.type == "cuda":
        torch.cuda.set_device(device)
    timeout = timedelta(seconds=timeout_seconds)
    store, beats = _connect(rendezvous, timeout, on_death)
    # Half the timeout: a stopped rank is named before any exchange times out.
    rank, world_size = rendezvous.rank, rendezvous.world_size
    heartbeat = Heartbeat(beats, rendezvous.store_host, rank, world_size, timeout_seconds / 2, on_death)
    heartbeat.start()
    try:
        with raises_lost("start"):
            dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size, timeout=timeout)
            team = Ranks(rendezvous, towers, heartbeat, use_nccl=use_nccl, timeout=timeout)
        yield team
    except Lost as lost:
        reason = heartbeat.explain()
        heartbeat.report(ExitStatus("lost", reason))
        raise Lost(f"rank {rank}: {reason} ({lost})") from lost
    except Exception as error:
        heartbeat.report(ExitStatus("failed", f"{type(error).__name__}: {error}"))
        raise
    heartbeat.stop()
    dist.destroy_process_group()


def _connect(rendezvous: Rendezvous, timeout: timedelta, on_death: Callable[[ExitStatus], object]) -> tuple[Store, Store]:
    """Two connections to the store, for what only this attempt's ranks read and write: calls on the first may block."""
    seconds = timeout.total_seconds()

    def end_process() -> None:
        message = f"rank {rendezvous.rank}: {rendezvous.store_host} did not answer for {seconds:.0f} s"
        on_death(ExitStatus("hung", message))
        os._exit(1)

    guard = threading.Timer(seconds + _MARGIN_SECONDS, end_process)  # the store's client has no timeout of its own for a reply
    guard.daemon = True
    guard.start()
    try:
        with raises_lost(f"rank {rendezvous.rank}: the store at {rendezvous.host}:{rendezvous.port}"):
            hosts = rendezvous.rank == 0 and not rendezvous.launcher_hosts_store
            first, second = (
                TCPStore(rendezvous.host, rendezvous.port, is_master=is_master, wait_for_workers=False, timeout=timeout)
                for is_master in (hosts, False)
            )
            attempt = _agree_on_attempt(first, rendezvous, time.monotonic() + seconds)
            return PrefixStore(attempt, first), PrefixStore(f"{attempt}/heartbeat", second)
    finally:
        guard.cancel()


def _agree_on_attempt(store: Store, rendezvous: Rendezvous, deadline: float) -> str:
    """A name for this attempt that all its ranks know and no other attempt has.

    torchrun keeps its store, with all keys, over restarts, and two launchers count restarts differently. Every rank therefore
    asks under a fresh name; rank 0 answers every name that it finds, until all ranks of this attempt have confirmed.
    """
    own = uuid.uuid4().hex
    if rendezvous.rank:
        store.set(f"alexnet/ask/{rendezvous.rank}", own)
        store.wait([f"alexnet/answer/{own}"])
        attempt: str = store.get(f"alexnet/answer/{own}").decode()
        store.set(f"{attempt}/joined/{rendezvous.rank}", "")
        return attempt
    while missing := [rank for rank in range(1, rendezvous.world_size) if not store.check([f"{own}/joined/{rank}"])]:
        if time.monotonic() > deadline:
            ranks = ", ".join(map(str, missing))
            raise Lost(f"rank {ranks} did not join; start every rank, each with the same address")
        for rank in missing:
            if store.check([f"alexnet/ask/{rank}"]):
                store.set(f"alexnet/answer/{store.get(f'alexnet/ask/{rank}').decode()}", own)
        time.sleep(_POLL_SECONDS)
    return own


class Ranks(Team):
    """This rank among the others, see Team.

    Args:
        heartbeat: counts the exchanges that this rank reaches.
        use_nccl: whether this rank can use NCCL; unless all can, all exchange through host memory by gloo.
        timeout: no exchange waits longer.
    """

    def __init__(
        self, rendezvous: Rendezvous, towers: int, heartbeat: Heartbeat, *, use_nccl: bool, timeout: timedelta
    ) -> None:
        rank, world_size = rendezvous.rank, rendezvous.world_size
        tower = rank % towers
        super().__init__([(tower, tower + 1)])
        self.rank, self.world_size = rank, world_size
        self.replica, self.replicas = rank // towers, world_size // towers
        self._towers, self._heartbeat = towers, heartbeat
        self._all = _member(dist.group.WORLD)
        self.staged = not all(self.all_gather_json(use_nccl))
        backend = "gloo" if self.staged else "nccl"
        same_samples = [list(range(first, first + towers)) for first in range(0, world_size, towers)]
        same_tower = [list(range(first, world_size, towers)) for first in range(towers)]
        # Every rank makes every group, in the same order.
        pairs = [dist.new_group(ranks, timeout, backend) for ranks in same_samples]
        gradient_groups = [dist.new_group(ranks, timeout, backend) for ranks in same_tower]
        sum_groups = [dist.new_group(ranks, timeout, "gloo") for ranks in same_tower]
        if towers > 1:
            self.link = TowerLink(_member(pairs[self.replica]), tower, staged=self.staged, exchange=self._exchange)
        self._gradient_group, self._sum_group = _member(gradient_groups[tower]), _member(sum_groups[tower])
        self._gradients: _GradientSum | None = None
        self._pending: tuple[Tensor, Any] | None = None  # flags of the last agreement, and their all-reduce

    def register_parameters(self, parameters: Sequence[nn.Parameter]) -> None:
        """See Team."""
        if self.replicas > 1:
            self._gradients = _GradientSum(parameters, self._gradient_group, self._exchange, staged=self.staged)

    def backward(self, losses: Tensor | None) -> None:
        """See Team. Gradients are summed while the backward pass goes on."""
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
                dist.all_reduce(sums, group=self._sum_group)
        return sums

    def agree(self, stop: bool, save: bool, now: bool = False) -> tuple[bool, bool]:
        """See Team. Flags are reduced while the next step is computed, and count then."""
        saving = bool(self._pending and self._pending[0][1])  # the last request to save has not been answered yet
        flags = torch.tensor([stop, save and self.is_rank0 and not saving], dtype=torch.int32)
        self._heartbeat.count_agreement()
        with raises_lost("agreement"):
            answers = [self._pending] if self._pending else []
            self._pending = (flags, dist.all_reduce(flags, dist.ReduceOp.MAX, group=self._all, async_op=True))
            if now:
                answers.append(self._pending)
                self._pending = None
            for _, work in answers:
                work.wait()
        return any(bool(flags[0]) for flags, _ in answers), any(bool(flags[1]) for flags, _ in answers)

    def all_gather_json(self, value: Any) -> list[Any]:
        """See Team."""
        text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        with self._exchange("all-gather"):
            sizes = torch.zeros(self.world_size, dtype=torch.int64)
            dist.all_gather_into_tensor(sizes, torch.tensor([len(text)]), group=self._all)
            width = int(sizes.max())
            texts = torch.zeros(self.world_size * width, dtype=torch.uint8)
            dist.all_gather_into_tensor(texts, torch.nn.functional.pad(text, (0, width - len(text))), group=self._all)
        rows = texts.view(self.world_size, width)
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

    def check_equal_on_ranks(self, values: Mapping[str, Any]) -> None:
        """See Team."""
        gathered = self.all_gather_json(dict(values))
        for rank, tree in enumerate(gathered):
            if found := first_difference(tree, gathered[0]):
                name, other, first = found
                raise DataError(
                    f"{name}: is {other!r} on rank {rank}, but {first!r} on rank 0; "
                    "start every rank with the same code, parameters and data"
                )

    def check_batch_split(self, samples: Tensor) -> None:
        """See Team."""
        gathered = self.all_gather_json(samples.tolist())
        pairs = [gathered[first : first + self._towers] for first in range(0, self.world_size, self._towers)]
        for replica, pair in enumerate(pairs):
            if any(other != pair[0] for other in pair):
                raise DataError(
                    f"batch: the towers of replica {replica} have different samples; start both with the same data and seed"
                )
        batch = [sample for pair in pairs for sample in pair[0]]
        if len(set(batch)) != len(batch):
            raise DataError("batch: two replicas have the same sample; give every replica its own part of the batch")

    def gather_state(self, full: dict[str, Tensor], own: Sequence[Piece], elsewhere: Sequence[NamedSlice]) -> None:
        """See Team. Replica 0's other tower sends its pieces through host memory, in the order of `elsewhere`."""
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
        full = {name: tensors[name][:].contiguous() for name in tensors} if tensors and self.rank == owner else {}
        layout = [(name, tensor.shape, str(tensor.dtype).removeprefix("torch.")) for name, tensor in full.items()]
        for name, shape, dtype in self.all_gather_json(layout)[owner]:
            if self.rank != owner:
                full[name] = torch.empty(shape, dtype=getattr(torch, dtype))
            with self._exchange("checkpoint"):
                dist.broadcast(full[name].view(torch.uint8) if shape else full[name], src=owner, group=self._all)
        return full

    @contextmanager
    def _exchange(self, what: str) -> Iterator[None]:
        self._heartbeat.count_exchange()
        with raises_lost(what):
            yield


class _GradientSum:
    """Sums gradients over replicas, each as soon as the backward pass has made it, always in the same order.

    A replica without samples adds zeros. Gradients of summed losses are summed, and divided at the end by the number of samples
    of all replicas, so that replicas may have different numbers of samples.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        group: dist.ProcessGroup,
        exchange: Callable[[str], AbstractContextManager[None]],
        *,
        staged: bool,
    ) -> None:
        self._order = list(reversed(parameters))  # about the order in which the backward pass makes gradients
        self._group, self._exchange, self._staged = group, exchange, staged
        self._ready: set[nn.Parameter] = set()
        self._sent: list[tuple[Tensor, Tensor, Any]] = []
        for parameter in self._order:
            parameter.register_post_accumulate_grad_hook(self._on_ready)

    def begin(self, samples: int) -> None:
        """Called before the backward pass, with this replica's number of samples."""
        self._ready.clear()
        self._sent.clear()
        self._count = torch.tensor(float(samples), dtype=torch.float64, device=self._order[0].device)
        self._send(self._count)

    def finish(self) -> None:
        """Called after the backward pass. Every gradient is then that of the mean over the whole batch."""
        for parameter in self._order:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self._ready.update(self._order)
        self._send_ready()
        for target, summed, work in self._sent:
            with raises_lost("sum of gradients"):
                work.wait()
            if summed is not target:
                target.copy_(summed)
        for parameter in self._order:
            assert parameter.grad is not None
            parameter.grad.div_(self._count.to(parameter.grad.dtype))

    def _on_ready(self, parameter: Tensor) -> None:
        self._ready.add(parameter)  # type: ignore[arg-type]  # a hook on a parameter is called with it
        self._send_ready()

    def _send_ready(self) -> None:
        while (number := len(self._sent) - 1) < len(self._order) and self._order[number] in self._ready:
            grad = self._order[number].grad
            assert grad is not None
            self._send(grad.detach())

    def _send(self, tensor: Tensor) -> None:
        summed = tensor.cpu() if self._staged else tensor
        flat = summed.as_strided((summed.numel(),), (1,))  # in memory order, which is the same on every replica
        with self._exchange("sum of gradients"):
            self._sent.append((tensor, summed, dist.all_reduce(flat, group=self._group, async_op=True)))


def _member(group: Any) -> dist.ProcessGroup:
    assert isinstance(group, dist.ProcessGroup), "this rank is in the group"
    return group
