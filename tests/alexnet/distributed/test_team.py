"""Which form training takes, and a team of one."""

import re

import pytest
import torch

from alexnet.distributed.team import Team, pick_form

GPUS = ["cuda:0", "cuda:1"]


@pytest.mark.parametrize(
    ("devices", "peer_access", "processes", "towers", "form", "why"),
    [
        (["cpu"], None, None, 2, "one-device", "one process on cpu: both towers as grouped convolutions"),
        (["cuda:0"], None, 1, 1, "one-device", "one process on cuda:0: a single tower"),
        (GPUS, True, 1, 2, "two-devices", "one process on cuda:0 and cuda:1: a tower on each"),
        (GPUS, True, 1, 1, "one-device", "one process on cuda:0: a single tower"),
        (GPUS, True, None, 2, "process-a-tower", "2 processes, a tower each; .* directly between GPUs by NCCL"),
        (GPUS, False, None, 2, "process-a-tower", "by NCCL, without peer access between the GPUs"),
        (["cuda:0", "cuda:0"], None, None, 2, "process-a-tower", "through host memory by gloo"),
        (["cpu", "cpu"], None, None, 2, "process-a-tower", "by gloo"),
        (GPUS, True, 4, 2, "towers-x-replicas", "4 processes: 2 replicas of 2 towers"),
        (GPUS, True, 2, 1, "replicas", "2 processes and one tower: each trains on its part of every batch"),
    ],
)
def test_the_form_follows_from_devices_and_processes(
    devices: list[str], peer_access: bool | None, processes: int | None, towers: int, form: str, why: str
) -> None:
    found, reason = pick_form(devices, peer_access, processes, towers)
    assert found == form
    assert re.search(why, reason), reason


def test_three_processes_cannot_share_two_towers() -> None:
    with pytest.raises(ValueError, match="processes: 3 ranks cannot share 2 towers; start a multiple of 2"):
        pick_form(["cpu"], None, 3)


def test_a_team_of_one_agrees_with_itself() -> None:
    team = Team()
    assert team.is_rank0
    assert team.agree(True, False) == (True, False)
    assert team.broadcast_from_rank0(lambda: [1, "a"]) == [1, "a"]
    assert torch.equal(team.all_reduce_sum(torch.ones(2)), torch.ones(2, dtype=torch.float64))
    team.check_equal_on_ranks({"a": 1})
    team.check_batch_split(torch.arange(3))
