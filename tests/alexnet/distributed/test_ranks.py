"""How ranks find each other, and what they exchange by."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from alexnet.distributed.errors import Lost
from alexnet.distributed.ranks import Rendezvous, join
from tests.support.team import CONTEXT


def one_of_two(rank: int, port: int, devices: tuple[str, ...], out: Path) -> None:
    """A rank on a device that it believes to have."""
    torch.cuda.set_device = lambda device: None
    rendezvous = Rendezvous(rank, len(devices), "127.0.0.1", port, launcher_hosts_store=False)
    with join(
        rendezvous, torch.device(devices[rank]), towers=2, shares_device=False, timeout_seconds=30.0, on_death=print
    ) as team:
        sums = team.link.sum([torch.full((2, 2), rank + 1.0)])[0]
        (out / f"{rank}").write_text(f"{team.staged} {sums.sum().item():g}")


@pytest.fixture
def port() -> int:
    """Free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_all(target: Callable[..., None], size: int, *args: object) -> list[int | None]:
    """The exit statuses of so many processes."""
    processes = [CONTEXT.Process(target=target, args=(rank, *args)) for rank in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(90)
    return [process.exitcode for process in processes]


def test_where_one_rank_has_no_gpu_of_its_own_all_go_through_host_memory(port: int, tmp_path: Path) -> None:
    """Were each to choose by its own device alone, they would wait for each other in different groups."""
    assert run_all(one_of_two, 2, port, ("cuda:0", "cpu"), tmp_path) == [0, 0]
    assert [(tmp_path / f"{rank}").read_text() for rank in (0, 1)] == ["True 12", "True 12"]


def test_a_rank_that_does_not_come_is_named(port: int) -> None:
    rendezvous = Rendezvous(0, 4, "127.0.0.1", port, launcher_hosts_store=False)
    with (
        pytest.raises(Lost, match="rank 1, 2, 3 did not join; start every rank, each with the same address"),
        join(rendezvous, torch.device("cpu"), towers=2, shares_device=False, timeout_seconds=1.0, on_death=print),
    ):
        pass


def test_a_rank_without_a_store_says_where_it_looked(port: int) -> None:
    rendezvous = Rendezvous(1, 2, "127.0.0.1", port, launcher_hosts_store=True)
    with (
        pytest.raises(Lost, match=f"rank 1: the store at 127.0.0.1:{port}: "),
        join(rendezvous, torch.device("cpu"), towers=2, shares_device=False, timeout_seconds=1.0, on_death=print),
    ):
        pass
