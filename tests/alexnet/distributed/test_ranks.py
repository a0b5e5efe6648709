"""How ranks find each other, and how they exchange."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from alexnet.distributed import ranks
from alexnet.distributed.errors import ExitStatus, Lost
from alexnet.distributed.ranks import Rendezvous, join
from alexnet.errors import DataError
from infra import ports
from tests.support.training_run import CONTEXT


def one_of_two(rank: int, port: int, devices: tuple[str, ...], out: Path) -> None:
    """A rank that takes its device for a GPU where it is so named."""
    torch.cuda.set_device = lambda device: None
    rendezvous = Rendezvous(rank, len(devices), "127.0.0.1", port, launcher_hosts_store=False)
    with join(
        rendezvous, torch.device(devices[rank]), towers=2, shares_device=False, timeout_seconds=30.0, on_death=print
    ) as team:
        sums = team.link.sum([torch.full((2, 2), rank + 1.0)])[0]
        (out / f"{rank}").write_text(f"{team.staged} {sums.sum().item():g}")


@pytest.fixture
def port() -> int:
    """A free port."""
    return ports.find_free(1)[0]


def run_all(target: Callable[..., None], size: int, *args: object) -> list[int | None]:
    """The exit statuses of so many processes."""
    processes = [CONTEXT.Process(target=target, args=(rank, *args)) for rank in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(90)
    return [process.exitcode for process in processes]


def test_if_one_rank_has_no_gpu_of_its_own_all_exchange_through_host_memory(port: int, tmp_path: Path) -> None:
    """If each chose a backend by its own device alone, they would wait for each other in different groups."""
    assert run_all(one_of_two, 2, port, ("cuda:0", "cpu"), tmp_path) == [0, 0]
    assert [(tmp_path / f"{rank}").read_text() for rank in (0, 1)] == ["True 12", "True 12"]


def test_a_rank_that_does_not_join_is_named(port: int) -> None:
    rendezvous = Rendezvous(0, 4, "127.0.0.1", port, launcher_hosts_store=False)
    with (
        pytest.raises(Lost, match="rank 1, 2, 3 did not join; start every rank, each with the same address"),
        join(rendezvous, torch.device("cpu"), towers=2, shares_device=False, timeout_seconds=1.0, on_death=print),
    ):
        pass


def test_a_rank_without_a_store_names_its_address(port: int) -> None:
    rendezvous = Rendezvous(1, 2, "127.0.0.1", port, launcher_hosts_store=True)
    with (
        pytest.raises(Lost, match=f"rank 1: the store at 127.0.0.1:{port}: "),
        join(rendezvous, torch.device("cpu"), towers=2, shares_device=False, timeout_seconds=1.0, on_death=print),
    ):
        pass


def joins_a_silent_store(rank: int, port: int, out: Path) -> None:
    """A rank whose store accepts the connection and never replies, as one that is stopped."""
    ranks._MARGIN_SECONDS = 0.0

    def on_death(status: ExitStatus) -> None:
        out.write_text(f"{status.cause}: {status.message}")

    rendezvous = Rendezvous(rank + 1, 2, "127.0.0.1", port, launcher_hosts_store=True)
    with join(rendezvous, torch.device("cpu"), towers=2, shares_device=False, timeout_seconds=1.0, on_death=on_death):
        pass


def test_a_rank_whose_store_never_replies_ends(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = int(silent.getsockname()[1])
        assert run_all(joins_a_silent_store, 1, port, tmp_path / "status") == [1]
    assert (tmp_path / "status").read_text() == f"hung: rank 1: the launcher at 127.0.0.1:{port} did not answer for 1 s"


def one_of_four(rank: int, port: int, out: Path) -> None:
    """A rank of two replicas that asks rank 0 for a value, and for an error."""
    rendezvous = Rendezvous(rank, 4, "127.0.0.1", port, launcher_hosts_store=False)
    with join(rendezvous, torch.device("cpu"), towers=2, shares_device=False, timeout_seconds=30.0, on_death=print) as team:
        found = [team.broadcast_from_rank0(lambda: {"rank": rank}), *team.all_gather_json("x" * rank)]
        found += [team.agree(rank == 3, rank == 1, now=True), team.agree(False, rank == 0, now=True)]
        found += [team.all_reduce_sum(torch.tensor([float(rank)])).item()]
        try:
            team.broadcast_from_rank0(lambda: fail("k1: torn"))
        except DataError as error:
            found.append(str(error))
        (out / f"{rank}").write_text(repr(found))


def fail(message: str) -> None:
    """Raises."""
    raise DataError(message)


def test_every_rank_gets_the_same_answers(port: int, tmp_path: Path) -> None:
    """Any rank may stop the run, only rank 0 may save; sums are over the replicas of a tower."""
    assert run_all(one_of_four, 4, port, tmp_path) == [0] * 4
    for rank in range(4):
        same = [{"rank": 0}, "", "x", "xx", "xxx", (True, False), (False, True)]
        assert (tmp_path / f"{rank}").read_text() == repr([*same, 2.0 + 2 * (rank % 2), "k1: torn"])
